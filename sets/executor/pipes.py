"""Pipes to and from a program: non-blocking descriptors on the event loop, with the pipe's own back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import Final

from scheduler.source import Source

PIPE_BYTES: Final = 1 << 20
"""Size asked for pipes that carry large bodies; the kernel may refuse, and then the default stays."""
READ_BYTES: Final = 1 << 18


def enlarge(fd: int) -> None:
    """Ask for a larger pipe. A refusal (the user's share of pipe memory is used up) costs only speed."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class _Pipe:
    """One end of a pipe. It owns its descriptor, also if its constructor fails. `close` wakes the coroutine that waits.

    One coroutine uses an end at a time. An end that is dropped is closed: its user may have been cancelled before it
    received it.
    """

    _fd = -1

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._waiter: asyncio.Future[None] | None = None
        os.set_blocking(fd, False)

    async def _until(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        if self._waiter is not None:
            raise RuntimeError("two coroutines wait for one end of a pipe")
        fd = self._fd
        waiter = self._waiter = self._loop.create_future()
        try:
            add(fd, _wake, waiter)
            await waiter
        finally:
            self._waiter = None
            # After a close the number may be somebody else's already.
            if self._fd == fd:
                remove(fd)

    def close(self) -> None:
        """Close this end; closing twice is fine."""
        if self._fd < 0:
            return
        if self._waiter is not None:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            _wake(self._waiter)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def __del__(self) -> None:
        # Nobody waits: who waits holds this object.
        if self._fd >= 0:
            os.close(self._fd)


class PipeReader(_Pipe):
    """The read end of a pipe."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        super().__init__(loop, fd)
        self._complete = False

    async def read(self) -> bytes:
        """Up to 256 KiB; empty at the end, or after `close`."""
        while True:
            if self._fd < 0:
                return b""
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                if self._complete:
                    return b""
                await self._until(self._loop.add_reader, self._loop.remove_reader)

    def complete(self) -> None:
        """All writers are dead: no more data will come than the pipe holds now.

        The pipe itself may not show that: a program can leave a write end in flight, in a message never received.
        """
        self._complete = True
        if self._waiter is not None:
            _wake(self._waiter)


class PipeWriter(_Pipe):
    """The write end of a pipe. `close` is the end of the program's input."""

    async def write(self, data: bytes) -> None:
        """Write all of `data`. Raises `BrokenPipeError` if the reader is gone, or after `close`."""
        view = memoryview(data)
        while view:
            if self._fd < 0:
                raise BrokenPipeError
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._until(self._loop.add_writer, self._loop.remove_writer)

    async def send(self, source: Source) -> None:
        """Feed all of `source`; bytes of an open file are not copied through this process.

        Raises `BrokenPipeError` as `write` does, `SourceUnreadable`, and `OSError` when the file is shorter.
        """
        fd, size_bytes = source.fileno(), source.size_bytes
        if fd is None:
            async for piece in source.pieces():
                await self.write(piece)
            return
        offset = 0
        while offset < size_bytes:
            if self._fd < 0:
                raise BrokenPipeError
            count = min(size_bytes - offset, PIPE_BYTES)
            try:
                moved = os.splice(fd, self._fd, count, offset_src=offset, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                await self._until(self._loop.add_writer, self._loop.remove_writer)
                continue
            if not moved:
                raise OSError(f"the input ends after {offset} of {size_bytes} bytes")
            offset += moved


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
