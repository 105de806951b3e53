"""Receivers of callbacks on the loopback: what each does with a request is a coroutine of the test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec


class Received(msgspec.Struct):
    """A request as it came. The names of headers are in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


Act = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """A server that keeps each request, then does what `act` says."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.received: list[Received] = []
        self.connections = 0
        self.port = 0
        self._handling: set[asyncio.Task[None]] = set()

    def url(self, path: str = "/hook", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *lines = head.split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            received = Received(line, headers, body)
            self.received.append(received)
            await self.act(received, reader, writer)
        writer.close()

    async def close(self) -> None:
        for task in list(self._handling):
            task.cancel()
        if self._handling:
            await asyncio.wait(list(self._handling))


@asynccontextmanager
async def receiving(
    act: Act, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    """A receiver that listens while the block runs."""
    receiver = Receiver(act)
    server = await asyncio.start_server(receiver.handle, host, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()


def answers(status: int, *lines: str, body: bytes = b"") -> Act:
    """A receiver that answers at once."""

    async def act(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status} Told", *lines, f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join(head).encode() + body)
        await writer.drain()

    return act


def says(data: bytes) -> Act:
    """A receiver that writes bytes and closes."""

    async def act(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return act


async def never(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """A receiver that never answers: it waits until the other side closes."""
    await reader.read()


def floods(start: bytes, piece: bytes) -> Act:
    """A receiver that writes pieces for as long as the other side reads."""

    async def act(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()

    return act


def drips(start: bytes, piece: bytes = b"x") -> Act:
    """A receiver that writes a byte now and then, without an end."""

    async def act(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    return act
