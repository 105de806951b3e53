"""Bytes of a known size that one part gives to another: a task's input, an output file, a stored body."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Final, Protocol

from scheduler.errors import SchedulerError

PIECE_BYTES: Final = 1 << 18
"""Size of the pieces in which an open file is read."""


class SourceUnreadable(SchedulerError):
    """The bytes cannot be read, or are not what they were."""


class Source(Protocol):
    """Bytes that lie somewhere, on this machine or another. Its owner closes it."""

    @property
    def size_bytes(self) -> int: ...

    def fileno(self) -> int | None:
        """Return a descriptor that belongs to the source, for consumers that need no copy of the bytes; None if it has
        none. It is of an open regular file of this machine that begins with these bytes; its offset may be anywhere."""

    def pieces(self, first: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """`length` bytes from byte `first` on, by default all that follow. Raises `SourceUnreadable`."""

    def close(self) -> None:
        """Closing twice is fine."""


class OpenFile:
    """A `Source` that owns an open regular file. One that is dropped closes itself."""

    __slots__ = ("_fd", "size_bytes")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size_bytes = os.fstat(fd).st_size

    def fileno(self) -> int:
        return self._fd

    async def pieces(self, first: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        end = self.size_bytes if length is None else first + length
        while first < end:
            try:
                piece = await asyncio.to_thread(os.pread, self._fd, min(PIECE_BYTES, end - first), first)
            except OSError as error:
                raise SourceUnreadable(f"it cannot be read: {error.strerror}") from error
            if not piece:
                raise SourceUnreadable("it became shorter while it was read")
            first += len(piece)
            yield piece

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self.close()
