"""The clock of the rig, which all hosts share."""

from __future__ import annotations

import time


def boot_s() -> float:
    """Seconds since the machine's start, as the kernel tells the birth of processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
