"""The handles by which a set uses a program on another machine: its output, its input, its output files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from scheduler.source import Source, SourceUnreadable
from sets.executor.link.flow import Inbound, Outbound
from sets.executor.output_file import OutputFile

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


def link_file(read: ReadFile, run: int, number: int, size_bytes: int) -> OutputFile[Inbound]:
    """Return an output file on another machine."""
    return OutputFile(size_bytes, partial(read, run, number), _broken)


def _broken(inbound: Inbound) -> SourceUnreadable:
    return SourceUnreadable(inbound.reason or "its node sent another number of bytes than the file has")
