"""Watches the set's disk for the policy of what accounts may keep on it (`policy.storage`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from scheduler.policy.storage import Holding, Storage, StorageLimits
from scheduler.store.contract import Blobs, Store
from scheduler.task import Kind, TaskSpec

log = structlog.get_logger()

LOOK_EVERY_S: Final = 0.25
"""How old, in seconds, the known free space may be: a large upload asks with each piece."""
UNKNOWN_S: Final = 5.0
"""When a caller may ask again, in seconds, if nothing of the account's tasks is known to expire."""
ASKED_MAX: Final = 1_000
"""How many accounts' next expiry is remembered."""


class StorageGuard:
    """Refuses what the disk, or the account's share of it, has no room for.

    `clock` gives seconds, and never goes back; `now_us` is the wall clock. `removal_s`: how long after its time an
    expired task is removed at the latest.
    """

    def __init__(
        self,
        limits: StorageLimits,
        store: Store,
        blobs: Blobs,
        removal_s: float,
        *,
        clock: Callable[[], float],
        now_us: Callable[[], int],
    ) -> None:
        self._storage = Storage(limits, store.kept)
        self._store = store
        self._blobs = blobs
        self._removal_s = removal_s
        self._clock = clock
        self._now_us = now_us
        self._look_at = 0.0
        # By account: until when the answer holds, and the answer.
        self._frees_at_us: dict[str, tuple[float, int | None]] = {}

    def check(self, spec: TaskSpec, input_bytes: int = 0) -> None:
        """Raise `StorageLimit` or `DiskFull` if the task is refused."""
        self._look()
        if spec.kind is Kind.ASYNC:
            self._storage.check(spec.account, input_bytes)
        elif spec.outputs:
            self._storage.check(spec.account)
        else:
            self._storage.check_row(spec.account)

    def hold(self, account: str) -> Holding:
        """Count what is about to be written for the account."""
        self._look()
        return self._storage.hold(account)

    def most_bytes(self, account: str) -> int:
        """The most that the account may ever keep."""
        return self._storage.limits.of(account)

    async def frees_in_s(self, account: str) -> float:
        """When the account will have more room, in seconds: the first of its ended tasks is removed then.

        Raises `StoreError`.
        """
        now = self._clock()
        until, at_us = self._frees_at_us.get(account, (0.0, None))
        if now >= until:
            if len(self._frees_at_us) >= ASKED_MAX:
                self._frees_at_us.clear()
            at_us = await self._store.frees_at_us(account)
            self._frees_at_us[account] = (now + 1.0, at_us)
        if at_us is None:
            return UNKNOWN_S
        return max(0.0, (at_us - self._now_us()) / 1e6) + self._removal_s

    def facts(self) -> dict[str, float]:
        """Gauges: the bytes that all accounts use, and whether the disk is short."""
        self._look()
        return {"kept_bytes": self._storage.used_bytes, "disk_short": self._storage.short}

    def _look(self) -> None:
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        try:
            free_bytes = self._blobs.free_bytes()
        except OSError:
            # The writers there meet the same trouble, and report it.
            return
        if self._storage.look(free_bytes):
            if self._storage.short:
                log.warning(
                    "the disk is short of space: accounts that keep much are refused",
                    free_bytes=free_bytes,
                    kept_bytes=self._storage.used_bytes,
                )
            else:
                log.info("the disk is no longer short of space", free_bytes=free_bytes)
