"""Background work: kept until it ends, its failures logged, and waited for at close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")


class Background:
    """A group of asyncio tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], *, awaited: bool = False) -> asyncio.Task[T]:
        """Start it; its failure is logged, unless somebody awaits it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._retrieved if awaited else self._done)
        return task

    async def stop(self, grace_s: float) -> None:
        """Wait until the tasks have ended by themselves, then cancel the rest."""
        if self._tasks and grace_s > 0:
            await asyncio.wait(list(self._tasks), timeout=grace_s)
        while self._tasks:
            left = list(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _retrieved(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        retrieve(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work failed", exc_info=error)


def retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve a task's failure, so that asyncio does not log one that no caller waits for."""
    if not task.cancelled():
        task.exception()


async def to_its_end(work: Awaitable[T]) -> T:
    """Await work that uses what its caller closes afterwards: to its end, even if the caller is cancelled."""
    done = asyncio.ensure_future(work)
    cancelled = False
    while not done.done():
        try:
            await asyncio.wait({done})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        # Retrieve the exception, so that asyncio does not log it as unhandled.
        done.exception()
        raise asyncio.CancelledError
    return done.result()
