"""Bounds how often each account does something: a token bucket for each, which refills at a steady rate. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

REMEMBERED: Final = 10_000
"""How many buckets are remembered at least, before those of accounts that came longest ago count as full again."""


class Rate(msgspec.Struct, frozen=True):
    """Bounds something to `per_s` times a second in the long run, and to `burst` times at once after a pause."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if self.per_s <= 0 or self.burst < 1:
            raise ValueError(f"a rate is above 0, and its burst 1 or more, not {self.per_s} and {self.burst}")

    @property
    def step_s(self) -> float:
        """Seconds between two at the rate."""
        return 1.0 / self.per_s

    @property
    def slack_s(self) -> float:
        """How many seconds ahead of the rate a burst may be."""
        return (self.burst - 1) / self.per_s


class Rates:
    """The buckets of all accounts. `usual` holds for accounts for which `of_account` gives None; None: no bound.

    `of_account` is asked each time, so an account's rate may change; its bucket must be full after `longest_s`.
    A bucket is one number: the time at which it will be full again, in seconds. So a full bucket needs no memory.
    """

    def __init__(
        self,
        usual: Rate | None,
        of_account: Callable[[str], Rate | None] = lambda _: None,
        longest_s: float = 0.0,
    ) -> None:
        self.refused = 0
        self._usual = usual
        self._of_account = of_account
        # Every bucket is full after this time without use.
        self._full_after_s = max(longest_s, 0.0 if usual is None else usual.step_s + usual.slack_s)
        # Buckets used since `_forget_at - _full_after_s`, and those used last in the period before that: all others
        # are full.
        self._new: dict[str, float] = {}
        self._old: dict[str, float] = {}
        self._forget_at = 0.0

    @property
    def remembered(self) -> int:
        """How many buckets are remembered."""
        return len(self._new) + len(self._old)

    def rate_of(self, account: str) -> float | None:
        """How often a second the account may; None: there is no bound."""
        rate = self._of_account(account) or self._usual
        return None if rate is None else rate.per_s

    def take(self, account: str, now: float) -> float:
        """Count one; returns 0. Where the bucket is empty, count nothing, and return when one is there, in seconds."""
        rate = self._of_account(account) or self._usual
        if rate is None:
            return 0.0
        full_at = self._full_at(account, now)
        if full_at <= now:
            self._new[account] = now + rate.step_s
            return 0.0
        wait_s = full_at - now - rate.slack_s
        if wait_s > 0.0:
            self.refused += 1
            return wait_s
        self._new[account] = full_at + rate.step_s
        return 0.0

    def wait_s(self, account: str, now: float) -> float:
        """When one is in the bucket, in seconds; 0: now. Counts nothing but a refusal."""
        rate = self._of_account(account) or self._usual
        if rate is None:
            return 0.0
        wait_s = max(0.0, self._full_at(account, now) - now - rate.slack_s)
        self.refused += wait_s > 0.0
        return wait_s

    def spend(self, account: str, now: float) -> None:
        """Count one that has happened, also where the bucket is empty: it does not become emptier than that."""
        rate = self._of_account(account) or self._usual
        if rate is not None:
            self._new[account] = min(max(self._full_at(account, now), now), now + rate.slack_s) + rate.step_s

    def _full_at(self, account: str, now: float) -> float:
        if now >= self._forget_at or len(self._new) >= REMEMBERED:
            self._old, self._new = self._new, {}
            self._forget_at = now + self._full_after_s
        full_at = self._new.get(account)
        return self._old.get(account, now) if full_at is None else full_at
