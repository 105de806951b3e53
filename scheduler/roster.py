"""The roster of a set: the tasks that wait or run now, by id, and the callers that wait for the end of one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from scheduler.errors import SlotLost, TaskUnknown
from scheduler.execution import Run, Work
from scheduler.image import Image
from scheduler.live import LiveTask
from scheduler.pool import PoolKey, pool_of
from scheduler.store.contract import Store
from scheduler.task import Isolation, Reason, State, Task

E = TypeVar("E", bound="Entry", contravariant=True)


class Side(Protocol[E]):
    """The side of an entry, which handles it: a caller waits for a sync task, the store for an async one."""

    def assigned(self, entry: E) -> None:
        """The task has the slot `entry.slot_id` now, which has no work yet: call `Floor.go` or `Floor.give_back`."""

    def began(self, entry: E, run: Run) -> None:
        """The task's program runs in its slot."""

    def not_begun(self, entry: E, error: SlotLost) -> None:
        """The task's slot was lost before its program began."""

    def cannot_run(self, entry: E, error: Exception) -> None:
        """The task waits no longer: no slot of its pool can be started, or its work is refused."""

    def queue_expired(self, entry: E, waited_for: str) -> None:
        """The task has waited for its longest time, and waits no longer. `waited_for` says in words for what."""

    def give_way(self, entry: E) -> None:
        """A normal task needs the room of this one: kill it, then call `Floor.gave_way`."""

    def time_up(self, entry: E) -> None:
        """The task has run for its longest time: kill it."""

    def cancel(self, entry: E) -> None:
        """Its owner wants its end now. It may have been asked for before."""


class Entry:
    """A task that waits or runs, as both sides and the floor see it; each side has a type of its own with the rest.

    `work` is what the floor starts in the task's slot; None: the side makes it once it has the slot. `queue_timeout_s`
    is how long the task waits for a slot, None: without an end. `live` is its running attempt.
    """

    __slots__ = ("cancel", "image", "live", "pool", "queue_timeout_s", "side", "slot_id", "task", "work")

    def __init__(self, task: Task, image: Image, side: Side[Any]) -> None:
        self.task = task
        self.image = image
        self.pool: PoolKey = pool_of(task.spec)
        self.side = side
        self.work: Work | None = None
        self.queue_timeout_s: float | None = None
        self.slot_id = ""
        self.live: LiveTask | None = None
        # Why its owner wanted its end.
        self.cancel: Reason | None = None

    def end(self) -> None:
        """Its owner wants its end now."""
        self.cancel = Reason.CANCELLED
        self.side.cancel(self)

    def new_work(self, stdin: bytes | None, *, stream: bool = False) -> Work:
        """The program to run, with this input."""
        spec = self.task.spec
        return Work(
            argv=tuple([arg.encode() for arg in self.image.argv(spec.args)]),
            env=tuple([variable.encode() for variable in self.image.variables(spec.env)]) if spec.env else (),
            stdin=stdin,
            outputs=tuple([path.encode() for path in spec.outputs]) if spec.outputs else (),
            stream=stream,
            # A fresh slot has one task only.
            prestart=spec.prestart and spec.isolation is Isolation.SHARED,
        )


class Roster:
    """The set's tasks by id: every task from its acceptance until its outcome is stored or given to its caller."""

    def __init__(self, store: Store) -> None:
        self.entries: dict[str, Entry] = {}
        self._store = store
        self._watchers: dict[str, set[asyncio.Future[Task | None]]] = {}
        # Those who wait until an attempt of a task begins.
        self._beginnings: dict[str, set[asyncio.Future[Task | None]]] = {}

    def began(self, entry: Entry, live: LiveTask) -> None:
        """An attempt of the task begins."""
        entry.live = live
        if self._beginnings:
            for future in self._beginnings.pop(entry.task.id, ()):
                if not future.done():
                    future.set_result(None)

    def beginning_of(self, task_id: str) -> asyncio.Future[Task | None]:
        """Return a future that is done when the task's next attempt begins; see `forget`."""
        return _watch(self._beginnings, task_id)

    def running_among(self, task_ids: Iterable[str]) -> int:
        """How many of these tasks run, or have ended and are not recorded yet."""
        found = (self.entries.get(task_id) for task_id in task_ids)
        return sum(entry is not None and entry.task.state is not State.QUEUED for entry in found)

    def remove(self, task_id: str) -> bool:
        """Forget a task and wake those that wait for its end; returns whether it was there."""
        entry = self.entries.pop(task_id, None)
        ended = entry.task if entry is not None and entry.task.ended else None
        for future in self._watchers.pop(task_id, ()):
            if not future.done():
                future.set_result(ended)
        return entry is not None

    def end(self, task_id: str) -> bool:
        """End a task now, as its owner wants; returns False if it neither waits nor runs."""
        entry = self.entries.get(task_id)
        if entry is not None:
            entry.end()
        return entry is not None

    def end_all(self, account: str) -> None:
        """End all tasks of an account now."""
        for entry in [each for each in self.entries.values() if each.task.spec.account == account]:
            entry.end()

    def removal_of(self, task_id: str) -> asyncio.Future[Task | None]:
        """Return a future that is done when the task, which is there now, is removed; its result is the ended task.

        See `forget`.
        """
        return _watch(self._watchers, task_id)

    def forget(self, task_id: str, future: asyncio.Future[Task | None]) -> None:
        """Nobody waits for `future` any more, which `removal_of` or `beginning_of` returned."""
        for watchers in (self._watchers, self._beginnings):
            waiting = watchers.get(task_id)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del watchers[task_id]

    async def get(self, account: str, task_id: str) -> Task:
        """The task as it is now. Raises `TaskUnknown`, also for another account's."""
        entry = self.entries.get(task_id)
        task = entry.task if entry is not None else await self._store.get(task_id)
        if task is None or task.spec.account != account:
            raise TaskUnknown(f"no task {task_id} of this account; ended tasks are kept for a limited time")
        return task

    async def wait(self, account: str, task_id: str, timeout_s: float) -> Task:
        """As `get`, once the task has ended or `timeout_s` passed."""
        if timeout_s <= 0:
            return await self.get(account, task_id)
        # Watching begins before looking, so that no end can be missed.
        future = self.removal_of(task_id)
        try:
            task = await self.get(account, task_id)
            if task.ended:
                return task
            with contextlib.suppress(TimeoutError):
                ended = await asyncio.wait_for(future, timeout_s)
                if ended is not None:
                    return ended
        finally:
            self.forget(task_id, future)
        return await self.get(account, task_id)


def _watch(
    watchers: dict[str, set[asyncio.Future[Task | None]]], task_id: str
) -> asyncio.Future[Task | None]:
    future: asyncio.Future[Task | None] = asyncio.get_running_loop().create_future()
    watchers.setdefault(task_id, set()).add(future)
    return future
