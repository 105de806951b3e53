"""Settings of the C library's memory, for processes that move large bodies."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

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
