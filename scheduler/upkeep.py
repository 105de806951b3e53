"""Removes what is no longer kept: ended tasks past their time, and blobs that no row names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

import structlog

from scheduler.errors import SchedulerError
from scheduler.policy.expiry import ROWS
from scheduler.store.contract import Blobs, Store
from scheduler.trouble import Trouble

log = structlog.get_logger()

SWEEP_EVERY_S: Final = 86_400.0
SWEEP_AGE_S: Final = 3_600.0
_CLOCK_STEP_S: Final = 2.0


class Upkeep:
    """The store's and the blobs' cleaner."""

    def __init__(self, store: Store, blobs: Blobs, unstored: Callable[[], Collection[str]]) -> None:
        self._store = store
        self._blobs = blobs
        # Blobs of outcomes that could not be stored yet.
        self._unstored = unstored
        self._trouble = Trouble("expired tasks could not be removed", "expired tasks are removed again")
        self._rounds = 0
        self._expiring = False
        self._began_s = time.time()

    async def expire(self, rounds: int) -> None:
        """Remove ended tasks whose time has passed, in up to `rounds` portions. A call under way does these as well."""
        self._rounds += rounds
        if self._expiring:
            return
        self._expiring = True
        try:
            while self._rounds:
                self._rounds -= 1
                freed = await self._store.expire(time.time_ns() // 1000, ROWS)
                await self._blobs.delete(freed)
        except (SchedulerError, OSError) as error:
            self._trouble.met(str(error))
        else:
            self._trouble.over()
        finally:
            self._rounds = 0
            self._expiring = False

    async def sweep(self) -> None:
        """At start what an earlier run orphaned, then daily what this one did."""
        # At first: what is younger than this run may be about to get its row.
        older_than_s: float | None = None
        while True:
            try:
                kept = set(self._unstored())
                kept |= await self._store.blobs_in_use()
                age_s = older_than_s or time.time() - self._began_s + _CLOCK_STEP_S
                swept = await self._blobs.sweep(kept, age_s)
                if swept:
                    log.info("orphaned blobs removed", blobs=swept)
            except (SchedulerError, OSError) as error:
                log.error("orphaned blobs could not be removed", error=str(error))
            older_than_s = SWEEP_AGE_S
            await asyncio.sleep(SWEEP_EVERY_S)
