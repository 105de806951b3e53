"""Settings of memory for processes that serve many tasks and move large bodies."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

GC_THRESHOLDS: Final = (10_000, 20, 20)
"""Thresholds of the garbage collector, high because few of our objects are in reference cycles."""
# glibc's malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> None:
    """Let the C library keep the memory of body pieces for later ones. Returning it to the system, which clears it
    again, took a fifth of a large body's time."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 4 << 20)
        mallopt(_M_TRIM_THRESHOLD, 32 << 20)


def collect_garbage_rarely() -> None:
    """Have the garbage collector run seldom, and never over the objects that exist now: scanning those again and again
    would only cost time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
