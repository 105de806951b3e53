"""The task manager of a set: the one door to its tasks. Assembles, opens and closes the parts that drive them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
import structlog

from scheduler.acceptance import Acceptance
from scheduler.async_side import AsyncSide
from scheduler.background import Background
from scheduler.clock import wall_us
from scheduler.errors import Draining, TaskUnknown
from scheduler.execution import Executor
from scheduler.floor import Floor
from scheduler.following import Followers
from scheduler.image import Image
from scheduler.images.contract import ImageSource
from scheduler.launchers.contract import Launcher
from scheduler.leftover import Leftovers
from scheduler.live import LiveTask
from scheduler.node_gate import NodeGate
from scheduler.observer import Observer
from scheduler.opening import Opening
from scheduler.policy.expiry import Expiry
from scheduler.policy.node import OWN_NODE, NodeFacts
from scheduler.policy.records import Refusals
from scheduler.pool import pool_of
from scheduler.recovery import Recovery
from scheduler.roster import Roster
from scheduler.settings import ManagerSettings
from scheduler.source import Source
from scheduler.storage import StorageGuard
from scheduler.store.contract import Blobs, Body, DeadLetters, Idempotency, Results, Store, TaskFilter
from scheduler.sync_side import SyncSide
from scheduler.task import State, Task, TaskIds, TaskSpec
from scheduler.upkeep import Upkeep

log = structlog.get_logger()

CANCEL_WAIT_S: Final = 10.0
"""How long `cancel` waits for the end that it asked for."""
CLOSE_GRACE_S: Final = 5.0
"""How long `close` waits for each kind of outcome to be stored."""


class Manager:
    """The task manager of one set; also receives the executor's events (`scheduler.execution.ExecutorEvents`).

    `clock` gives the seconds by which it decides, and never goes back. `now_us` is the wall clock: a task's times, in
    microseconds since the epoch.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        store: Store,
        blobs: Blobs,
        images: ImageSource,
        launcher: Launcher,
        executor: Executor,
        observer: Observer,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self.settings = settings
        self.ids = TaskIds(settings.set_name, now_us)
        # The process ends: no order of an operator opens the set again.
        self.stopping = False
        self._ordered_to_drain = False
        self._now_us = now_us
        self._store = store
        self._blobs = blobs
        self._images = images
        self._launcher = launcher
        self._executor = executor
        self._observer = observer
        self._roster = Roster(store)
        self.followers = Followers(settings, self._roster)
        self._leftovers = Leftovers(store, self._roster)
        self._upkeep = Upkeep(store, blobs, lambda: self._async.unstored, now_us=now_us)
        storage = self.storage = StorageGuard(
            settings.storage, store, blobs, settings.expire_every_s, clock=clock, now_us=now_us
        )
        limits = settings.limits
        own_node = NodeFacts(
            OWN_NODE,
            limits.cpu_percent,
            limits.memory_mib,
            limits.max_slots,
            settings.cpu_features,
            build=settings.build,
        )
        own = own_node if settings.own_node else None
        floor = self._floor = Floor(
            msgspec.structs.replace(limits, start_timeout_s=settings.slot_start_timeout_s),
            settings.retries(),
            self._roster,
            self._leftovers,
            self._upkeep,
            launcher,
            executor,
            own_node=own,
            slot_started=observer.slot_started,
            expiry=Expiry(settings.expire_every_s),
            clock=clock,
            now_us=now_us,
        )
        # What operators see of all accounts.
        self.overview = self._floor.overview
        self._nodes = NodeGate(self._floor, own)
        self._sync = SyncSide(
            settings,
            store,
            blobs,
            self.storage,
            self._floor,
            self._roster,
            self.ids,
            self._task_ended,
            Refusals(settings.record_patience_s),
            keep_s=settings.sync_keep_s,
            clock=clock,
            now_us=now_us,
        )
        self._async = AsyncSide(
            settings, store, blobs, storage, floor, self._roster, self._task_ended, clock=clock, now_us=now_us
        )
        self.acceptance = Acceptance(
            store, blobs, images, storage, floor, self._roster, self.ids, self._async, now_us=now_us
        )
        self._recovery = Recovery(store, images, self._async, self.acceptance)
        self._background = Background()
        self._parts = AsyncExitStack()
        self.others_wait = self._floor.others_wait
        self.running_among = self._roster.running_among
        # The executor's events go straight to the part that acts on them.
        self.slot_ready = self._floor.slot_ready
        self.slot_freed = self._floor.slot_freed
        self.slot_lost = self._floor.slot_lost
        self.prestart_unfit = self._floor.prestart_unfit
        self.node_ready = self._nodes.node_ready
        self.node_draining = self._nodes.node_draining
        self.node_lost = self._nodes.node_lost
        self.node_stands = self._floor.node_stands
        self.left_over = self._leftovers.used
        self.check_launcher = launcher.check

    # -- life

    async def open(self) -> None:
        """Open the parts and go on with the tasks that an earlier run left queued or running.

        A set whose engine does not answer, answers slowly, or lacks its runtime, opens all the same: it is not ready
        until the launcher is open. Raises `StoreError`, `StoreTooNew`, and errors of `Launcher.open` that are not the
        engine's fault; then nothing is left open.
        """
        async with AsyncExitStack() as parts:
            parts.push_async_callback(asyncio.to_thread, self._blobs.close)
            await self._store.open()
            parts.push_async_callback(self._store.close)
            await self._executor.open(self)
            parts.push_async_callback(self._executor.close)
            parts.push_async_callback(self._launcher.close)
            parts.push_async_callback(self._background.stop, 0)
            parts.push_async_callback(self._upkeep.close)
            self._recovery.begin()
            opening = Opening(self._launcher, self._background)
            await opening.begin()
            self._background.spawn(self._connect(opening))
            self._floor.open()
            self._parts = parts.pop_all()

    async def close(self) -> None:
        """Stop. Sync tasks end; async ones, queued or running, stay in the store as queued for the next start."""
        self.stopping = True
        self.followers.stop()
        self._sync.refuse()
        self.acceptance.stop()
        self._async.stop()
        try:
            await self._background.stop(0)
            await self._upkeep.close()
            # Running attempts are lost with their slots; each task returns to the queue or ends.
            await self._floor.close()
            await self._sync.close(CLOSE_GRACE_S)
            await self.acceptance.close(CLOSE_GRACE_S)
            await self._async.close(CLOSE_GRACE_S)
            await self._leftovers.close(CLOSE_GRACE_S)
        finally:
            await self._parts.aclose()

    @property
    def draining(self) -> bool:
        """True while the set takes no new tasks."""
        return self.stopping or self._ordered_to_drain

    def drain(self) -> None:
        """Take no new tasks and begin none that waits; what runs goes on.

        Async tasks wait on, callers of sync ones are refused. It lasts until `resume`, or the end of this process.
        """
        if not self._ordered_to_drain:
            log.info("set drains", running=self.running)
        self._ordered_to_drain = True
        self._nodes.shut()
        self._sync.refuse()
        self.followers.drain()

    def resume(self) -> None:
        """Take tasks again after `drain`. A set that stops still takes none."""
        if self._ordered_to_drain:
            log.info("set takes tasks again", waiting=len(self._roster.entries) - self.running)
        self._ordered_to_drain = False
        self._nodes.open()
        self.followers.resume()
        if not self.stopping:
            self._sync.accept()

    @property
    def running(self) -> int:
        """How many tasks run, or have ended and are not recorded yet."""
        return self.running_among(self._roster.entries)

    async def check(self) -> None:
        """Raise `Unavailable` or `StoreError` when this set could not run a task now."""
        if self.draining:
            raise Draining
        self._sync.check()
        self._floor.check_nodes()
        await self._launcher.check()

    # -- tasks

    async def resolve(self, reference: str) -> Image:
        """The image that a reference names now. Raises as `ImageSource.resolve`."""
        return await self._images.resolve(reference)

    def start(
        self,
        spec: TaskSpec,
        image: Image,
        stdin: bytes | None,
        *,
        queue_timeout_s: float,
        stream: bool = False,
    ) -> Coroutine[Any, Any, LiveTask]:
        """Run a sync task: returns once it has a slot. `stdin` None: write it to the `stdin` of what is returned.

        Raises `QueueFull`, `AccountLimit`, `QueueTimeout`, `Draining`, `DiskFull`, `BadRequest`, `ImageUnusable`,
        `TaskCancelled`, all with nothing executed.
        """
        return self._sync.start(spec, image, stdin, queue_timeout_s=queue_timeout_s, stream=stream)

    def run(
        self,
        spec: TaskSpec,
        image: Image,
        stdin: bytes,
        *,
        queue_timeout_s: float,
        head_bytes: int,
        stream: bool = False,
    ) -> Coroutine[Any, Any, tuple[LiveTask, bytes, bool]]:
        """As `start`, and `LiveTask.head` of it; again, within bounds, when the platform lost an attempt."""
        return self._sync.run(
            spec, image, stdin, queue_timeout_s=queue_timeout_s, head_bytes=head_bytes, stream=stream
        )

    def abandon(self, live: LiveTask) -> None:
        """The client of a sync task is gone: kill the task and conclude it in the background."""
        self._sync.abandon(live)

    def finish(self, live: LiveTask) -> Coroutine[Any, Any, Task]:
        """Conclude a sync task whose output was read; its usage is recorded when this returns.

        So are its output files. A caller that is cancelled meanwhile has abandoned the task. Raises `SlotLost`,
        `FilesNotKept`, and `NotRecorded` when no record could be written within seconds.
        """
        return self._sync.finish(live)

    def submit(
        self, spec: TaskSpec, image: Image, stdin: Body, idempotency: Idempotency | None
    ) -> Coroutine[Any, Any, Task]:
        """Keep an async task; when this returns it survives loss of power. Takes over `stdin`'s blob.

        A caller that is cancelled meanwhile has submitted it all the same. Raises `IdempotencyConflict`, `StoreError`,
        `DiskFull`, `QueueFull`, `AccountLimit`, `Draining`, `BadRequest`; then the blob is deleted.
        """
        return self.acceptance.submit(spec, image, stdin, idempotency)

    def replay(self, account: str, task_id: str) -> Coroutine[Any, Any, Task]:
        """Run a dead letter again, as a new task. A second call returns the same new task.

        Raises `TaskUnknown`, `NotDead`, and as `resolve` and `submit`.
        """
        if self.draining:
            raise Draining
        return self.acceptance.replay(account, task_id)

    def check_room(self, spec: TaskSpec, input_bytes: int = 0) -> None:
        """Raise what `start` and `submit` would raise about limits; before a body is read."""
        if self.draining:
            raise Draining
        self.storage.check(spec, input_bytes)
        self._floor.check(pool_of(spec), spec.timeout_s)

    async def get(self, account: str, task_id: str) -> Task:
        """Raises `TaskUnknown`, also for another account's."""
        return await self._roster.get(account, task_id)

    async def keyed(self, account: str, key: str) -> Task:
        """The task that this idempotency key made. Raises `TaskUnknown`."""
        task = await self._store.keyed(account, key, self._now_us())
        if task is None:
            raise TaskUnknown("no task was made under this key here within 24 h")
        return await self._roster.get(account, task.id)

    async def twin(self, account: str, idempotency: Idempotency) -> Task | None:
        """The task that the same call made under this key. Raises `IdempotencyConflict` if it was another call."""
        task = await self._store.twin(account, idempotency, self._now_us())
        return None if task is None else await self._roster.get(account, task.id)

    async def wait(self, account: str, task_id: str, timeout_s: float) -> Task:
        """As `get`, once the task has ended or `timeout_s` passed."""
        return await self._roster.wait(account, task_id, timeout_s)

    async def page(self, task_filter: TaskFilter) -> list[Task]:
        """Newest first."""
        entries = self._roster.entries
        tasks = await self._store.page(task_filter)
        return [entries[task.id].task if task.id in entries else task for task in tasks]

    def waiting_for(self, task: Task) -> str | None:
        """Say in words what a queued task waits for; None where it is not queued, or is still being taken up."""
        said = self._floor.waiting_for(task.id) if task.state is State.QUEUED else None
        if said is not None and self._ordered_to_drain:
            return "the set drains, and begins no task until an operator resumes it"
        return said

    async def results(self, task_id: str) -> Results | None:
        """Return the results of an ended task (of a sync one: its files); None if they are not kept."""
        return await self._store.results(task_id)

    def open_blob(self, name: str) -> Source:
        """A result's blob, for the caller to close. Raises `StoreError` when it is gone."""
        return self._blobs.open_read(name)

    async def cancel(self, account: str, task_id: str) -> Task:
        """End a task now; one that has ended already stays as it is. Raises `TaskUnknown`.

        The task may still be running when this returns, where its end takes longer than `CANCEL_WAIT_S`.
        """
        task = await self._roster.get(account, task_id)
        if task.ended:
            return task
        if not self._roster.end(task_id):
            self._recovery.cancel(task_id)
        return await self._roster.wait(account, task_id, CANCEL_WAIT_S)

    def cancel_all(self, account: str) -> None:
        """End all tasks of an account that wait or run, without waiting for their ends."""
        self._roster.end_all(account)

    # -- numbers

    async def dead_letters(self) -> DeadLetters:
        """How many dead letters all accounts have. Raises `StoreError`."""
        return await self._store.dead_letters()

    def facts(self) -> dict[str, float]:
        """Return gauges by name: live and waiting tasks, cores, memory and slots, and how much of each is in use."""
        return {
            "tasks_known": len(self._roster.entries),
            "tasks_waiting_max": self.settings.limits.max_waiting,
            "followers": len(self.followers),
            **self._floor.facts(),
            **self.storage.facts(),
        }

    # -- in the background

    def _task_ended(self, task: Task) -> None:
        self._floor.task_ended()
        self._observer.task_ended(task)

    async def _connect(self, opening: Opening) -> None:
        """Start the work that needs slots, once the launcher is open."""
        await opening.until_open()
        self._floor.launcher_opened()
        await self._recovery.run()
