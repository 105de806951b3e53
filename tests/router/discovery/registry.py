"""A double of a service registry's HTTP API: blocking queries, indexes, and the mistakes that a test asks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

Entry = dict[str, Any]


class Question(msgspec.Struct, frozen=True):
    """A question that was asked: its path, its query without the wait, and its token."""

    path: str
    index: int
    namespace: str
    token: str


class Reply(msgspec.Struct, frozen=True):
    """An answer that is no honest one. `silent`: nothing is answered."""

    status: int = 200
    content: bytes = b""
    silent: bool = False


class FakeRegistry:
    """Holds a list of entries, as `consul` or `nomad` writes them, for every service that is asked for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.asked: list[Question] = []
        self.answered = 0
        self.reply: Callable[[Question], Reply | None] = lambda question: None
        self.entries: list[Entry] = []
        self.index = 1
        self.url = ""
        self._news = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    def register(self, *entries: Entry) -> None:
        """Replace the entries."""
        self.entries = list(entries)
        self.index += 1
        self._news.set()
        self._news = asyncio.Event()

    def instance(self, host: str, port: int, status: str = "passing") -> Entry:
        """An entry with the fields that are read, registered after all others."""
        if self.kind == "nomad":
            return {"Address": host, "Port": port, "CreateIndex": self.index, "ServiceName": "gc-set-a"}
        return {
            "Node": {"Address": "10.9.9.9"},
            "Service": {"Address": host, "Port": port, "CreateIndex": self.index},
            "Checks": [{"Status": "passing"}, {"Status": status}],
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                question, wait = _question(head)
                self.asked.append(question)
                reply = self.reply(question)
                if reply is not None and reply.silent:
                    await reader.read()
                    return
                if reply is None:
                    if question.index >= self.index and wait:
                        await self._hold(reader)
                    reply = Reply(content=json.dumps(self.entries).encode())
                name = f"X-{self.kind.capitalize()}-Index"
                lines = f"HTTP/1.1 {reply.status} x\r\n{name}: {self.index}\r\n"
                lines += f"Content-Length: {len(reply.content)}\r\n\r\n"
                writer.write(lines.encode() + reply.content)
                await writer.drain()
                self.answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _hold(self, reader: asyncio.StreamReader) -> None:
        """Wait for news, or for the end of a client that says nothing meanwhile."""
        news, gone = asyncio.ensure_future(self._news.wait()), asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({news, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ConnectionError
        finally:
            news.cancel()
            gone.cancel()
            await asyncio.gather(news, gone, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._writers)

    def cut(self) -> None:
        """Break all connections off."""
        for writer in self._writers:
            writer.transport.abort()


def _question(head: str) -> tuple[Question, bool]:
    first, *lines = head.split("\r\n")
    url = urlsplit(first.split(" ")[1])
    query = parse_qs(url.query)
    tokens = [
        line.partition(": ")[2] for line in lines if line.lower().startswith(("x-consul-t", "x-nomad-t"))
    ]
    index = int(query.get("index", ["0"])[0])
    namespace = (query.get("ns") or query.get("namespace") or [""])[0]
    return Question(url.path, index, namespace, "".join(tokens)), "wait" in query


@asynccontextmanager
async def registry_of(kind: str) -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry(kind)
    server = await asyncio.start_server(registry.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    registry.url = f"http://{host}:{port}"
    try:
        yield registry
    finally:
        server.close()
        registry.cut()
