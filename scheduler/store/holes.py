"""Copies files of strangers: what is data is copied, what is a hole stays one.

A program makes a hole of any size at no cost, `ftruncate(fd, 1 << 40)`. Written out as zeros it would cost us its size
in disk and in time; as a hole it costs nothing here either, so that a copy never takes more disk than its original took
of the slot's memory. Blocking; for threads.
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
"""What finding an extent counts as, beside its bytes: a file of many small ones has its price, too."""


def copy(fd: int, at: int, end: int, target: FileIO, most_bytes: int) -> int:
    """Copy from offset `at` on, up to `end` and some `most_bytes`; returns how far it came.

    `target` stands where the copy of `at` belongs, and afterwards where that of the returned offset does. Raises
    `SourceUnreadable`, and `OSError` for `target`.
    """
    while at < end and most_bytes > 0:
        data = _seek(fd, at, end, os.SEEK_DATA)
        if data > at:
            target.seek(data - at, os.SEEK_CUR)
            if data == end:
                # Writing nothing would leave the hole at the end out.
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


def read(fd: int, count: int, offset: int = 0) -> bytes:
    """All of `count` bytes. Raises `SourceUnreadable`."""
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
    """Where the next data, or the next hole, begins; `end` at most."""
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
    # One that shrank looks like one that ends in a hole.
    if found_bytes < size_bytes:
        raise SourceUnreadable("it became shorter while it was read")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceUnreadable(f"it cannot be read: {error.strerror}") from error
