"""The wall clock of a set. Deadlines and pauses are measured by a clock that never goes back (`time.monotonic`)."""

from __future__ import annotations

import time


def wall_us() -> int:
    """Microseconds since the epoch. An operator or NTP may set this clock back."""
    return time.time_ns() // 1000
