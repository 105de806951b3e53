"""Removes what is no longer kept: ended tasks past their time, and blobs that no row names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import structlog

from scheduler.background import Background
from scheduler.clock import wall_us
from scheduler.errors import SchedulerError
from scheduler.policy.expiry import ROWS
from scheduler.store.contract import Blobs, Store
from scheduler.trouble import Trouble

log = structlog.get_logger()

_CLOCK_STEP_S: Final = 2.0
"""Seconds that the wall clock may lose between a run's start and a blob's time stamp without harm to that blob."""


class Upkeep:
    """The store's and the blobs' cleaner. The cell decides when; both calls return at once."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        unstored: Callable[[], Collection[str]],
        *,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self._store = store
        self._blobs = blobs
        # Blobs of outcomes that could not be stored yet.
        self._unstored = unstored
        self._trouble = Trouble("expired tasks could not be removed", "expired tasks are removed again")
        self._background = Background()
        self._rounds = 0
        self._expiring = False
        self._sweeping = False
        self._now_us = now_us
        self._began_us = now_us()

    def expire(self, rounds: int) -> None:
        """Remove ended tasks whose time has passed, in up to `rounds` portions; those under way do these as well."""
        self._rounds += rounds
        if not self._expiring:
            self._expiring = True
            self._background.spawn(self._expire())

    def sweep(self, min_age_s: float | None) -> None:
        """Remove blobs of that age that no row names; None: all that are older than this run. One sweep at a time."""
        if not self._sweeping:
            self._sweeping = True
            self._background.spawn(self._sweep(min_age_s))

    async def close(self) -> None:
        """Break off what is under way; it is done again after the next start."""
        await self._background.stop(0)

    async def _expire(self) -> None:
        try:
            while self._rounds:
                self._rounds -= 1
                freed = await self._store.expire(self._now_us(), ROWS)
                await self._blobs.delete(freed)
        except (SchedulerError, OSError) as error:
            self._trouble.met(str(error))
        else:
            self._trouble.over()
        finally:
            self._rounds = 0
            self._expiring = False

    async def _sweep(self, min_age_s: float | None) -> None:
        try:
            kept = set(self._unstored())
            kept |= await self._store.blobs_in_use()
            # A blob younger than this run may still be about to get its row.
            if min_age_s is None:
                min_age_s = (self._now_us() - self._began_us) / 1e6 + _CLOCK_STEP_S
            swept = await self._blobs.sweep(kept, min_age_s)
            if swept:
                log.info("orphaned blobs removed", blobs=swept)
        except (SchedulerError, OSError) as error:
            log.error("orphaned blobs could not be removed", error=str(error))
        finally:
            self._sweeping = False
