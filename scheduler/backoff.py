"""Pauses between tries of what fails: each twice as long as the one before, up to a longest one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from zlib import crc32

import msgspec

SPREAD_STEPS: Final = 16
"""How many pauses `Backoff.spread` chooses from: few, because timers of one length share a queue."""


class Backoff(msgspec.Struct, frozen=True):
    """The pauses of one kind of retry, in seconds. It keeps no count: a caller counts its tries, or iterates."""

    first_s: float
    max_s: float

    def after(self, failures: int) -> float:
        """The pause after that many failures in a row, at least one."""
        # The exponent is bounded: 2.0 ** 1024 overflows, and the longest pause is reached long before.
        return min(self.first_s * 2.0 ** min(failures - 1, 60), self.max_s)

    def spread(self, failures: int, key: str) -> float:
        """Return `after(failures)` less up to half of it; `key` decides how much, so equal failures spread out."""
        step = crc32(f"{key} {failures}".encode()) % SPREAD_STEPS
        return self.after(failures) * (1 - step / (2 * SPREAD_STEPS))

    def __iter__(self) -> Iterator[float]:
        """All pauses, without an end."""
        pause_s = min(self.first_s, self.max_s)
        while True:
            yield pause_s
            pause_s = min(2 * pause_s, self.max_s)
