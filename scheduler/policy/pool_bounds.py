"""Bounds how many pools there are, of each account and in all, and how fast an account may add new ones. Pure.

A pool that has neither slots nor tasks is forgotten. The next task of its kind makes it new again and needs a slot that
starts, which costs an engine as much as a thousand small tasks and is billed to nobody.
"""

from __future__ import annotations

from typing import Final

from scheduler.errors import AccountLimit, QueueFull
from scheduler.policy.limits import Limits
from scheduler.policy.rates import Rate, Rates

BURST_S: Final = 120
"""Seconds' worth of new pools that an account may add at once."""
AGAIN_S: Final = 10.0
"""When a caller who met the bound on pools may ask again, in seconds; pools go when their slots have idled for long."""
_SAME: Final = "tasks of the same image, cpu, memory_mib, cpu_feature, isolation and priority share one"


class PoolBounds:
    """Counts the pools of a cell."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        per_s = limits.new_pools_account_per_s
        rate = None if per_s is None else Rate(per_s, max(1, round(per_s * BURST_S)))
        self._rates = Rates(rate)
        self._pools = 0
        self._of: dict[str, int] = {}

    def check(self, account: str, now: float) -> None:
        """Raise `AccountLimit` or `QueueFull` if the account may not add a pool now."""
        limits = self._limits
        if self._of.get(account, 0) >= limits.max_pools_account:
            raise AccountLimit(
                f"this account has {limits.max_pools_account} kinds of slots in this set already, and may have no "
                f"more: {_SAME}; use fewer, or wait until some have not been used for a while",
                retry_after_s=AGAIN_S,
            )
        if self._pools >= limits.max_pools:
            raise QueueFull(
                f"this set has {self._pools} kinds of slots already, and may have no more; try another set, or again "
                "later",
                retry_after_s=AGAIN_S,
            )
        wait_s = self._rates.wait_s(account, now)
        if wait_s:
            per_s = self._rates.rate_of(account)
            raise AccountLimit(
                f"this account may ask for {per_s:g} new kinds of slots per second, and asks for more: {_SAME}; "
                "use kinds that it has, or wait as Retry-After says",
                retry_after_s=wait_s,
            )

    def added(self, account: str, now: float) -> None:
        """The account has a new pool."""
        self._rates.spend(account, now)
        self._pools += 1
        self._of[account] = self._of.get(account, 0) + 1

    def removed(self, account: str) -> None:
        """One of the account's pools is forgotten."""
        self._pools -= 1
        left = self._of[account] - 1
        if left:
            self._of[account] = left
        else:
            del self._of[account]
