"""Bounds how often each account does something: a token bucket for each, which refills at a steady rate. Pure."""

from __future__ import annotations

from collections.abc import Mapping
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


class Rates:
    """The buckets of all accounts. `usual` holds for accounts that `of_account` does not name; None: no bound.

    A bucket is one number: the time at which it will be full again, in seconds. So a full bucket needs no memory.
    """

    def __init__(self, usual: Rate | None, of_account: Mapping[str, Rate] | None = None) -> None:
        self.refused = 0
        self._usual = _numbers(usual)
        self._of_account = {name: _numbers(rate) for name, rate in (of_account or {}).items()}
        # Every bucket is full after this time without use.
        bounded = [numbers for numbers in (self._usual, *self._of_account.values()) if numbers is not None]
        self._full_after_s = max((step_s + slack_s for step_s, slack_s in bounded), default=0.0)
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
        numbers = self._of_account.get(account, self._usual)
        return None if numbers is None else 1.0 / numbers[0]

    def take(self, account: str, now: float) -> float:
        """Count one; returns 0. Where the bucket is empty, count nothing, and return when one is there, in seconds."""
        numbers = self._of_account.get(account, self._usual)
        if numbers is None:
            return 0.0
        full_at = self._full_at(account, now)
        step_s, slack_s = numbers
        if full_at <= now:
            self._new[account] = now + step_s
            return 0.0
        wait_s = full_at - now - slack_s
        if wait_s > 0.0:
            self.refused += 1
            return wait_s
        self._new[account] = full_at + step_s
        return 0.0

    def wait_s(self, account: str, now: float) -> float:
        """When one is in the bucket, in seconds; 0: now. Counts nothing but a refusal."""
        numbers = self._of_account.get(account, self._usual)
        if numbers is None:
            return 0.0
        wait_s = max(0.0, self._full_at(account, now) - now - numbers[1])
        self.refused += wait_s > 0.0
        return wait_s

    def spend(self, account: str, now: float) -> None:
        """Count one that has happened, also where the bucket is empty: it does not become emptier than that."""
        numbers = self._of_account.get(account, self._usual)
        if numbers is not None:
            step_s, slack_s = numbers
            self._new[account] = min(max(self._full_at(account, now), now), now + slack_s) + step_s

    def _full_at(self, account: str, now: float) -> float:
        if now >= self._forget_at or len(self._new) >= REMEMBERED:
            self._old, self._new = self._new, {}
            self._forget_at = now + self._full_after_s
        full_at = self._new.get(account)
        return self._old.get(account, now) if full_at is None else full_at


def _numbers(rate: Rate | None) -> tuple[float, float] | None:
    """Seconds between two at the rate, and how many seconds ahead of it a burst may be."""
    return None if rate is None else (1.0 / rate.per_s, (rate.burst - 1) / rate.per_s)
