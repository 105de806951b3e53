"""Records the usage of sync tasks, before their callers receive the last byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from scheduler.backoff import Backoff
from scheduler.errors import DiskFull, NotRecorded, SchedulerError, StoreError
from scheduler.store.contract import Durability, Results, Store
from scheduler.task import Task

log = structlog.get_logger()

PATIENCE_S: Final = 5.0
"""Longest time, in seconds, that an answer waits for a store that refuses its record."""
AGAIN: Final = Backoff(0.05, 1.0)
"""Pauses between attempts to write a record, in seconds."""
REFUSE_S: Final = 1.0
"""Seconds for which new tasks are refused after a record was refused: they could not be answered either."""


class UsageRecords:
    """Writes the rows of sync tasks. A task whose row cannot be written is not billed, and its result is withheld."""

    def __init__(self, store: Store, keep_s: int) -> None:
        self._store = store
        self._keep_us = keep_s * 1_000_000
        self._refused: SchedulerError | None = None
        self._refuse_until = 0.0

    def check(self) -> None:
        """Raise `DiskFull` or `StoreError` while records are being refused."""
        refused = self._refused
        if refused is not None and time.monotonic() < self._refuse_until:
            kind = DiskFull if isinstance(refused, DiskFull) else StoreError
            raise kind(str(refused))

    async def write(self, task: Task, results: Results | None = None) -> None:
        """Write the row of an ended task, with its results; it survives a killed process when this returns.

        Raises `NotRecorded`.
        """
        task.expires_us = (task.ended_us or 0) + self._keep_us
        try:
            await self._save(task, results)
        except SchedulerError as error:
            await self._insist(task, results, error)
        if self._refused is not None:
            self._refused = None

    def _save(self, task: Task, results: Results | None) -> Coroutine[Any, Any, None]:
        if results is None:
            return self._store.update(task, Durability.PROCESS)
        return self._store.finish(task, results, Durability.PROCESS)

    async def _insist(self, task: Task, results: Results | None, error: SchedulerError) -> None:
        deadline = time.monotonic() + PATIENCE_S
        for delay_s in AGAIN:
            self._refused, self._refuse_until = error, time.monotonic() + REFUSE_S
            if time.monotonic() + delay_s > deadline:
                # The only trace of the task that remains for the operator's books.
                log.error("usage not recorded, result withheld", error=str(error), **_usage(task))
                raise NotRecorded(f"the task ran, but its usage could not be recorded: {error}") from error
            await asyncio.sleep(delay_s)
            try:
                await self._save(task, results)
                return
            except SchedulerError as again:
                error = again


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
