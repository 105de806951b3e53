"""The tasks that wait or run now, and who waits for their end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from scheduler.errors import TaskUnknown
from scheduler.execution import Work
from scheduler.image import Image
from scheduler.live import LiveTask
from scheduler.pool import PoolKey
from scheduler.store.contract import Store
from scheduler.task import Isolation, Reason, Task


class Side(Protocol):
    """What becomes of an entry is up to its side: a caller waits for a sync task, the store for an async one."""

    def assigned(self, entry: Entry) -> None:
        """A slot, `entry.slot_id`, is the task's now; `Floor.go` or `Floor.give_back` must follow."""

    def cannot_run(self, entry: Entry, error: Exception) -> None:
        """No slot of its pool can be started; it waits no longer."""

    def cancel(self, entry: Entry) -> None:
        """Its owner wants its end now. It may have been asked for before."""


class Entry:
    """A task that waits or runs."""

    __slots__ = (
        "cancel",
        "ending",
        "image",
        "live",
        "pool",
        "side",
        "slot_id",
        "started",
        "stdin",
        "stream",
        "task",
        "timer",
        "to_first_news",
    )

    def __init__(self, task: Task, image: Image, pool: PoolKey, side: Side) -> None:
        self.task = task
        self.image = image
        self.pool = pool
        self.side = side
        self.stdin: bytes | None = None
        self.stream = False
        # A sync task's caller waits here for its slot, or until its program has something to tell.
        self.started: asyncio.Future[None] | None = None
        self.to_first_news = False
        self.live: LiveTask | None = None
        self.slot_id = ""
        # Why its owner wanted its end.
        self.cancel: Reason | None = None
        # Its outcome is decided and being stored.
        self.ending = False
        # Until when it pauses before its next attempt.
        self.timer: asyncio.TimerHandle | None = None

    def work(self, stdin: bytes | None) -> Work:
        spec = self.task.spec
        return Work(
            argv=tuple([arg.encode() for arg in self.image.argv(spec.args)]),
            env=tuple([variable.encode() for variable in self.image.variables(spec.env)]) if spec.env else (),
            stdin=stdin,
            outputs=tuple([path.encode() for path in spec.outputs]) if spec.outputs else (),
            stream=self.stream,
            # A fresh slot has one task only.
            prestart=spec.prestart and spec.isolation is Isolation.SHARED,
        )


class Roster:
    """Entries by task id: every task from its acceptance until its outcome is stored or given to its caller."""

    def __init__(self, store: Store) -> None:
        self.entries: dict[str, Entry] = {}
        self._store = store
        self._watchers: dict[str, set[asyncio.Future[None]]] = {}

    def remove(self, task_id: str) -> bool:
        """Forget a task and wake who waits for its end; whether it was there."""
        there = self.entries.pop(task_id, None) is not None
        for future in self._watchers.pop(task_id, ()):
            if not future.done():
                future.set_result(None)
        return there

    def left(self, task_id: str) -> asyncio.Future[None]:
        """Ends when the task, which is there now, is removed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(task_id, set()).add(future)
        return future

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
        # Watching begins before looking: nothing can end in between.
        future = self.left(task_id)
        try:
            task = await self.get(account, task_id)
            if task.ended:
                return task
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(future, timeout_s)
        finally:
            watchers = self._watchers.get(task_id)
            if watchers is not None:
                watchers.discard(future)
                if not watchers:
                    del self._watchers[task_id]
        return await self.get(account, task_id)
