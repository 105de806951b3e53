"""Sources of a request's body: bytes, a file, a pipe or terminal, any iterable of bytes.

A body whose length is known is sent with Content-Length, which lets the set take its fast path; any other is
chunked.
"""

import os
import select
import stat
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, Protocol, runtime_checkable

from ops.client.errors import InputFailed

Body = bytes | bytearray | memoryview | BinaryIO | Iterable[bytes]

SMALL_BYTES: Final = 60 * 1024
"""Bytes read ahead from a pipe: input that ends within them is sent with its length (the API's small body)."""

SETTLE_S: Final = 0.1
"""Longest wait for the end of a piped input, in seconds, before it is sent in chunks."""


class Source(Protocol):
    """A body that is being sent.

    `length` is its size in bytes or None; `fd` is the descriptor to poll before the next read, or None if a read
    never blocks.
    """

    length: int | None

    @property
    def fd(self) -> int | None: ...

    def read(self, limit: int) -> bytes | memoryview:
        """Return the next piece, at most `limit` bytes; empty at the end. Raises InputFailed."""
        ...


@runtime_checkable
class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def fileno(self) -> int: ...


class BytesSource:
    """A body that is in memory."""

    fd = None

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._rest = memoryview(data).cast("B")
        self.length: int | None = len(self._rest)

    def read(self, limit: int) -> memoryview:
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece


class FileSource:
    """A regular file, from an offset to the end that it had when the call began."""

    fd = None

    def __init__(self, file_fd: int, offset: int, length: int) -> None:
        self._file_fd = file_fd
        self._offset = offset
        self._left = length
        self.length: int | None = length

    def read(self, limit: int) -> bytes:
        if self._left == 0:
            return b""
        try:
            piece = os.pread(self._file_fd, min(limit, self._left), self._offset)
        except OSError as error:
            raise InputFailed(f"the input file could not be read: {error.strerror}") from error
        if not piece:
            raise InputFailed(f"the input file was truncated while it was sent; bytes missing: {self._left}")
        self._offset += len(piece)
        self._left -= len(piece)
        return piece


class PipeSource:
    """A pipe, terminal, socket or device, read as its bytes arrive; `head` was read from it before."""

    length: int | None = None

    def __init__(self, pipe_fd: int, head: bytes = b"") -> None:
        self._pipe_fd = pipe_fd
        self._head = memoryview(head)

    @property
    def fd(self) -> int | None:
        return None if self._head else self._pipe_fd

    def read(self, limit: int) -> bytes | memoryview:
        if self._head:
            piece, self._head = self._head[:limit], self._head[limit:]
            return piece
        return _read(self._pipe_fd, limit)


class IterableSource:
    """Pieces from a generator, or from a file object without a descriptor."""

    fd = None
    length: int | None = None

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, limit: int) -> memoryview:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest = memoryview(piece)
        piece_, self._rest = self._rest[:limit], self._rest[limit:]
        return piece_


def source_of(body: Body) -> Source:
    """Return the source for a body. A pipe must not have been read through a Python buffer before."""
    if isinstance(body, bytes | bytearray | memoryview):
        return BytesSource(body)
    if not isinstance(body, _Readable):
        return IterableSource(iter(body))
    try:
        fd = body.fileno()
    except (AttributeError, OSError):
        return IterableSource(iter(lambda: body.read(SMALL_BYTES), b""))
    return descriptor_source(fd, offset=_position(body))


def descriptor_source(fd: int, *, offset: int | None = None) -> Source:
    """Return a source that reads an open descriptor; a file, or a pipe that ends early, has a known length."""
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            start = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
            # Files of /proc report size 0 but have content: read them like a pipe.
            if status.st_size > start:
                return FileSource(fd, start, status.st_size - start)
    except OSError as error:
        raise InputFailed(f"the input could not be opened: {error.strerror}") from error
    return PipeSource(fd) if os.isatty(fd) else _settled(fd)


def _settled(fd: int) -> Source:
    pieces: list[bytes] = []
    size = 0
    until = time.monotonic() + SETTLE_S
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while size < SMALL_BYTES and poll.poll(max(0.0, until - time.monotonic()) * 1000):
        piece = _read(fd, SMALL_BYTES - size)
        if not piece:
            return BytesSource(b"".join(pieces))
        pieces.append(piece)
        size += len(piece)
    return PipeSource(fd, b"".join(pieces))


def _read(fd: int, limit: int) -> bytes:
    try:
        return os.read(fd, limit)
    except OSError as error:
        raise InputFailed(f"the input could not be read: {error.strerror}") from error


def _position(body: object) -> int | None:
    """Return a file object's position; its descriptor may be further ahead because of buffering."""
    try:
        return int(body.tell())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return None
