"""A set's connection without a socket: bytes in, what the application was given and what was answered out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

from sets.http.connection import Connection

Scope = dict[str, Any]


class Wire(asyncio.Transport):
    """The transport: it sends everything at once, and says what the connection did with it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.ended = False
        """Whether our side sends no more."""
        self.paused = False
        self.aborted = False
        self.unsent_bytes = 0
        self.socket: socket.socket | None = None
        self.protocol: asyncio.BaseProtocol | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self.socket
        return ("127.0.0.1", 1) if name in ("sockname", "peername") else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        # As uvloop has it.
        assert not self.ended, "a write after the end"
        self.sent += bytes(data)

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def close(self) -> None:
        self.ended = True
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            asyncio.get_running_loop().call_soon(protocol.connection_lost, None)


class EchoWorker:
    """What a connection needs of a worker, and an application that notes whole requests and answers each with 204."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.body_stall_s = 60.0
        self.set_header = b"x-set: t\r\n"
        self.connections: set[Connection] = set()
        self.nr_conns = 0
        self.connections_max = 100
        self.alive = True
        self.requests: list[tuple[Scope, bytes]] = []
        self.asgi: Callable[[Scope, Any, Any], Awaitable[None]] = self.note

    async def note(self, scope: Scope, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            event = await receive()
            if event["type"] != "http.request":
                return
            body += event["body"]
            more = event["more_body"]
        self.requests.append((scope, body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


class Talk:
    """One client's connection to an `EchoWorker`."""

    def __init__(self, worker: EchoWorker | None = None) -> None:
        self.worker = worker or EchoWorker()
        self.wire = Wire()
        self.connection = Connection(cast(Any, self.worker))
        self.wire.protocol = self.connection
        self.connection.connection_made(self.wire)

    @property
    def requests(self) -> list[tuple[Scope, bytes]]:
        return self.worker.requests

    async def say(self, *pieces: bytes) -> None:
        """Send pieces as the connection takes them, and let it do what it does."""
        for piece in pieces:
            await self.offer(piece)
        await self.settle()

    async def offer(self, piece: bytes) -> None:
        while self.wire.paused and not self.wire.ended:  # noqa: ASYNC110
            await asyncio.sleep(0)
        if self.wire.protocol is not None:
            self.connection.data_received(piece)

    async def settle(self) -> None:
        before = None
        quiet = 0
        while quiet < 5:
            now = (len(self.wire.sent), len(self.requests), self.wire.ended, self.connection.idle)
            quiet = quiet + 1 if now == before else 0
            before = now
            await asyncio.sleep(0)

    def statuses(self) -> list[int]:
        return [
            int(line.split()[1]) for line in self.wire.sent.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")
        ]

    async def end(self) -> None:
        """Hang up. Nothing of the connection is left afterwards."""
        self.wire.abort()
        await self.settle()
        assert self.connection not in self.worker.connections
        assert self.worker.nr_conns == len(self.worker.connections)
