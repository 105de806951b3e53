"""Records the usage of sync tasks, before their callers receive the last byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from scheduler.errors import NotRecorded, SchedulerError
from scheduler.policy.records import Refusals
from scheduler.store.contract import Durability, Results, Store
from scheduler.task import Task

log = structlog.get_logger()


class UsageRecords:
    """Writes the rows of sync tasks. A task whose row cannot be written is not billed, and its result is withheld.

    `clock` gives seconds, and never goes back.
    """

    def __init__(
        self, store: Store, keep_s: int, refusals: Refusals, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._keep_us = keep_s * 1_000_000
        self._refusals = refusals
        self._clock = clock

    def check(self) -> None:
        """Raise `DiskFull` or `StoreError` while records are being refused."""
        self._refusals.check(self._clock())

    async def write(self, task: Task, results: Results | None = None) -> None:
        """Write the row of an ended task, with its results; it survives a killed process when this returns.

        Raises `NotRecorded`.
        """
        task.expires_us = (task.ended_us or 0) + self._keep_us
        try:
            await self._save(task, results)
        except SchedulerError as error:
            await self._insist(task, results, error)
        self._refusals.written()

    def _save(self, task: Task, results: Results | None) -> Coroutine[Any, Any, None]:
        if results is None:
            return self._store.update(task, Durability.PROCESS)
        return self._store.finish(task, results, Durability.PROCESS)

    async def _insist(self, task: Task, results: Results | None, error: SchedulerError) -> None:
        first_at = self._clock()
        tries = 1
        while (pause_s := self._refusals.refused(error, tries, first_at, self._clock())) is not None:
            await asyncio.sleep(pause_s)
            try:
                await self._save(task, results)
                return
            except SchedulerError as again:
                error = again
                tries += 1
        # The only trace of the task that remains for the operator's books.
        log.error("usage not recorded, result withheld", error=str(error), **_usage(task))
        raise NotRecorded(f"the task ran, but its usage could not be recorded: {error}") from error


def _usage(task: Task) -> dict[str, object]:
    return {
        "task": task.id,
        "account": task.spec.account,
        "image": task.spec.image,
        "state": str(task.state),
        "ended_us": task.ended_us,
        "cpu_us": task.cpu_us,
        "duration_us": task.duration_us,
    }
