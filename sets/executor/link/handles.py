"""The handles by which a set uses a program on another machine: its output, its input, its output files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from scheduler.source import Source, SourceUnreadable
from sets.executor.link.flow import Inbound, Outbound

ReadFile = Callable[[int, int, int, int], Inbound]
"""Asks for bytes of an output file: the run, the file's number, the first byte, how many."""


class LinkReader:
    """A program's output on another machine (`scheduler.execution.ByteReader`). One that is dropped is closed."""

    __slots__ = ("_inbound", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, inbound: Inbound) -> None:
        self._loop = loop
        self._inbound = inbound

    async def read(self) -> bytes:
        """Some bytes; empty at the end, and after `close`."""
        return await self._inbound.read()

    def complete(self) -> None:
        """The program has ended. The node tells the end of its output by itself."""

    def close(self) -> None:
        self._inbound.close()

    def __del__(self) -> None:
        if not self._inbound.over and not self._loop.is_closed():
            # The garbage collector may do this in any thread.
            self._loop.call_soon_threadsafe(self._inbound.close)


class LinkWriter:
    """A program's input on another machine (`scheduler.execution.ByteWriter`)."""

    __slots__ = ("_outbound",)

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def write(self, data: bytes) -> None:
        """Write all of `data`. Raises `BrokenPipeError` when nobody reads it, and after `close`."""
        await self._outbound.send(data)

    async def send(self, source: Source) -> None:
        """Feed all of `source`. Raises `BrokenPipeError` as `write` does, and `SourceUnreadable`."""
        async for piece in source.pieces():
            await self.write(piece)

    def close(self) -> None:
        self._outbound.end()


class LinkFile:
    """An output file on another machine (`scheduler.source.Source`)."""

    __slots__ = ("_number", "_read", "_run", "size_bytes")

    def __init__(self, read: ReadFile, run: int, number: int, size_bytes: int) -> None:
        self._read = read
        self._run = run
        self._number = number
        self.size_bytes = size_bytes

    def fileno(self) -> None:
        return None

    async def pieces(self, first: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        left = self.size_bytes - first if length is None else length
        inbound = self._read(self._run, self._number, first, left)
        try:
            while left:
                piece = await inbound.read()
                if not piece or len(piece) > left:
                    raise SourceUnreadable(
                        inbound.reason or "its node sent another number of bytes than the file has"
                    )
                left -= len(piece)
                yield piece
        finally:
            inbound.close()

    def close(self) -> None:
        """The run's files are given back together, by `Ending.close_files`."""
