"""Reads a blob while it is still being written. It holds no descriptor in between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from scheduler.errors import StoreError
from scheduler.store import faults


async def read_back(names: Sequence[Path], first: int, length: int) -> bytes:
    """Return some of `length` bytes from byte `first` on, which the file has. `names`: its name now, and its later one.

    Raises `StoreError`. The blobs' own threads are left to those who write.
    """
    try:
        data = await asyncio.to_thread(_read, names, first, length)
    except OSError as error:
        raise faults.from_os(error, names[-1]) from error
    if not data:
        raise StoreError(f"blob {names[-1].name} became shorter, or is gone")
    return data


def _read(names: Sequence[Path], first: int, length: int) -> bytes:
    # Bytes that were written once stay as they are, under either name.
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            return os.pread(fd, length, first)
        finally:
            os.close(fd)
    return b""
