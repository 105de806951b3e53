"""Pauses between tries of what fails: each twice as long as the one before, up to a longest one."""

from __future__ import annotations

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """The pauses of one kind of retry, in seconds. It keeps no count: its caller counts the failures."""

    first_s: float
    max_s: float

    def after(self, failures: int) -> float:
        """The pause after that many failures in a row, at least one."""
        # The exponent is bounded: 2.0 ** 1024 overflows, and the longest pause is reached long before.
        return min(self.first_s * 2.0 ** min(failures - 1, 60), self.max_s)
