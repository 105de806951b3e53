"""A set's HTTP on a real socket: a server whose application says what it was given, and a client of bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from sets.http.connection import Connection

Scope = dict[str, Any]
Event = dict[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

WAIT_S = 60.0


class Server:
    """Connections on a real socket, with what they need of a worker."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.body_stall_s = 5.0
        self.set_header = b"x-set: t\r\n"
        self.connections: set[Connection] = set()
        self.nr_conns = 0
        self.connections_max = 100
        self.alive = True
        self.asgi: App = self.tell
        self.calls: list[Scope] = []
        self.ended: list[str] = []

    async def tell(self, scope: Scope, receive: Any, send: Any) -> None:
        """Reads the body, answers with what was asked."""
        self.calls.append(scope)
        pieces: list[bytes] = []
        try:
            while True:
                event = await receive()
                if event["type"] != "http.request":
                    self.ended.append("disconnect")
                    break
                pieces.append(event["body"])
                if not event["more_body"]:
                    self.ended.append("whole")
                    break
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        said = {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "body": b"".join(pieces).decode("latin-1"),
        }
        await answer(send, 200, json.dumps(said).encode())


async def answer(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *pieces: str | bytes) -> None:
        data = b"".join(piece.encode("latin-1") if isinstance(piece, str) else piece for piece in pieces)
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(WAIT_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:-2])
        assert headers.get("x-set") == "t" or lines[0].startswith("HTTP/1.1 100 "), lines
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        status, headers = await self.head()
        async with asyncio.timeout(WAIT_S):
            body = await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, json.loads(body) if body[:1] == b"{" else body

    async def rest(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


HOST = "Host: x\r\n"
