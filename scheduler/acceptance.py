"""Accepts async tasks: new ones, and replays of dead letters. Each is on disk before its caller hears of it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence

from scheduler.accepted_image import resolve
from scheduler.async_side import AsyncSide
from scheduler.background import Background
from scheduler.clock import wall_us
from scheduler.errors import Draining, NotDead, SchedulerError
from scheduler.floor import Floor
from scheduler.image import Image
from scheduler.images.contract import ImageSource
from scheduler.moments import Moments
from scheduler.pool import pool_of
from scheduler.roster import Roster
from scheduler.storage import StorageGuard
from scheduler.store.contract import Blobs, Body, Idempotency, Store
from scheduler.task import Task, TaskIds, TaskSpec

Writing = Callable[[], Awaitable[None]]
"""A write that has been prepared."""


class Acceptance:
    """The door of the async side. After `stop` nothing is accepted."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        images: ImageSource,
        storage: StorageGuard,
        floor: Floor,
        roster: Roster,
        ids: TaskIds,
        side: AsyncSide,
        *,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._images = images
        self._storage = storage
        self._floor = floor
        self._roster = roster
        self._ids = ids
        self._side = side
        self._now_us = now_us
        # Writes of new tasks are never broken off; all else is, at the end of the set's patience.
        self._writes = Background()
        self._stopping = False
        # While an earlier run's tasks are still being read from the store: which ones are of this run.
        self.accepted: set[str] | None = None

    async def submit(
        self, spec: TaskSpec, image: Image, stdin: Body, idempotency: Idempotency | None
    ) -> Task:
        """See `Manager.submit`."""
        # A commit under way cannot be taken back: a caller that goes away now has submitted its task all the same.
        return await asyncio.shield(
            self._writes.spawn(self._submit(spec, image, stdin, idempotency), awaited=True)
        )

    async def replay(self, account: str, task_id: str) -> Task:
        """Run a dead letter again, as a new task with its request and input. A second call returns the same new task.

        A caller that is cancelled meanwhile has replayed it all the same. Raises `TaskUnknown`, `NotDead`, and as
        `Manager.submit` and `ImageSource.resolve`; then the dead letter stays.
        """
        return await asyncio.shield(self._writes.spawn(self._replay(account, task_id), awaited=True))

    async def add_all(self, spec: TaskSpec, image: Image, tasks: Sequence[Task], write: Writing) -> None:
        """Enter new tasks of one image once `write` has stored them all; `spec` is that of any of them.

        A caller that is cancelled meanwhile has added them all the same. Raises as `Manager.submit` and `write` do.
        """
        await asyncio.shield(self._writes.spawn(self._add_all(spec, image, tasks, write), awaited=True))

    def stop(self) -> None:
        """Refuse what comes from now on."""
        self._stopping = True

    async def close(self, grace_s: float) -> None:
        """Wait for the writes under way."""
        await self._writes.stop(grace_s)

    async def _submit(
        self, spec: TaskSpec, image: Image, stdin: Body, idempotency: Idempotency | None
    ) -> Task:
        try:
            self._check(spec)
            task = self._new_task(spec, stdin.size_bytes)
            if idempotency is None and stdin.inline is not None:
                return await self._keep_beside(task, image, stdin)
            return await self._keep(task, image, self._store.add(task, stdin, idempotency))
        except SchedulerError:
            if stdin.blob is not None:
                await self._blobs.delete([stdin.blob])
            raise

    async def _replay(self, account: str, task_id: str) -> Task:
        dead = await self._roster.get(account, task_id)
        if not dead.ended:
            raise NotDead(
                f"task {task_id} is {dead.state}: only a task that the platform gave up can be replayed"
            )
        if dead.replayed_as is not None:
            return await self._roster.get(account, dead.replayed_as)
        image = await resolve(self._images, dead.spec)
        self._check(dead.spec)
        task = self._new_task(dead.spec, dead.stdin_bytes)
        task.replay_of = task_id
        return await self._keep(task, image, self._store.replay(task_id, task))

    async def _add_all(self, spec: TaskSpec, image: Image, tasks: Sequence[Task], write: Writing) -> None:
        self._check(spec)
        if self.accepted is not None:
            self.accepted.update(task.id for task in tasks)
        await write()
        if not self._stopping:
            for task in tasks:
                self._floor.enter(self._side.enter(task, image))

    def _check(self, spec: TaskSpec) -> None:
        if self._stopping:
            raise Draining
        self._storage.check(spec)
        self._floor.check(pool_of(spec), spec.timeout_s)

    def _new_task(self, spec: TaskSpec, stdin_bytes: int) -> Task:
        task = Task(self._ids.new(), spec, self._now_us(), stdin_bytes=stdin_bytes, moments=Moments(0))
        if self.accepted is not None:
            # Before it can be read from the store.
            self.accepted.add(task.id)
        return task

    async def _keep_beside(self, task: Task, image: Image, stdin: Body) -> Task:
        """Let the task wait for a slot, and run, while it is being written; its caller hears of it once it is written.

        So a task that is over soon costs one commit, not two after each other. Not for a key, which may have made a
        task already, nor for a large input, whose file is deleted when the task is refused.
        """
        # Its row is made before it runs.
        written = self._store.add(task, stdin, None)
        entry = self._side.enter(task, image)
        entry.is_being_written()
        self._floor.enter(entry)
        try:
            await written
        except BaseException as error:
            self._side.refused(entry)
            if isinstance(error, SchedulerError) and entry.live is not None:
                # Other callers may share the error object.
                known = copy.copy(error)
                known.executed = True
                raise known from error
            raise
        self._side.added(entry)
        return task

    async def _keep(self, task: Task, image: Image, write: Awaitable[Task]) -> Task:
        """Enter the task once it is written; an earlier one that the write returns instead is known already."""
        kept = await write
        if kept.id != task.id:
            known = self._roster.entries.get(kept.id)
            return kept if known is None else known.task
        if not self._stopping:
            self._floor.enter(self._side.enter(task, image))
        return task
