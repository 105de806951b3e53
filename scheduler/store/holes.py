"""Copies sparse files: copies data, and keeps holes as holes.

A program can make a hole of any size at no cost: `ftruncate(fd, 1 << 40)`. Written as zeros, it would cost us that much
disk and time. Kept as a hole it costs nothing, so a copy never takes more disk than the original took of the slot's
memory. Blocking; call it in threads.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Final

from scheduler.source import SourceUnreadable

READ_BYTES: Final = 1 << 20
EXTENT_COST_BYTES: Final = 4096
"""Bytes counted for each extent, besides its data: finding many small extents takes time, too."""


def copy(fd: int, at: int, end: int, target: FileIO, most_bytes: int) -> int:
    """Copy from offset `at` up to `end`, about `most_bytes` at most; return the offset reached.

    The position of `target` is that of `at`'s copy before, and that of the returned offset's copy afterwards. Raises
    `SourceUnreadable`, and `OSError` for `target`.
    """
    while at < end and most_bytes > 0:
        data = _seek(fd, at, end, os.SEEK_DATA)
        if data > at:
            target.seek(data - at, os.SEEK_CUR)
            if data == end:
                # Without a write the file would end before its last hole.
                target.truncate()
        at = data
        hole = _seek(fd, at, end, os.SEEK_HOLE)
        while at < hole and most_bytes > 0:
            piece = read(fd, min(READ_BYTES, hole - at), at)
            with memoryview(piece) as rest:
                written = 0
                while written < len(rest):
                    written += target.write(rest[written:]) or 0
            at += len(piece)
            most_bytes -= len(piece)
        most_bytes -= EXTENT_COST_BYTES
    if at == end:
        _check_size(fd, end)
    return at


def write(data: bytearray, target: FileIO) -> None:
    """Append `data` to the target, as a hole where it is all zeros."""
    if data and not data[0] and data == bytes(len(data)):
        target.seek(len(data), os.SEEK_CUR)
        target.truncate()
        return
    with memoryview(data) as rest:
        at = 0
        while at < len(rest):
            at += target.write(rest[at:]) or 0


def read(fd: int, count: int, offset: int = 0) -> bytes:
    """Read exactly `count` bytes. Raises `SourceUnreadable`."""
    pieces = []
    while count:
        with _reading():
            piece = os.pread(fd, count, offset)
        if not piece:
            raise SourceUnreadable("it became shorter while it was read")
        pieces.append(piece)
        offset += len(piece)
        count -= len(piece)
    return b"".join(pieces)


def _seek(fd: int, at: int, end: int, whence: int) -> int:
    """Return the offset at which the next data, or the next hole, begins; `end` at most."""
    if at == end:
        return end
    try:
        return min(os.lseek(fd, at, whence), end)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        raise SourceUnreadable(f"it cannot be read: {error.strerror}") from error


def _check_size(fd: int, size_bytes: int) -> None:
    with _reading():
        found_bytes = os.fstat(fd).st_size
    # A file that shrank looks like one that ends in a hole.
    if found_bytes < size_bytes:
        raise SourceUnreadable("it became shorter while it was read")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceUnreadable(f"it cannot be read: {error.strerror}") from error
