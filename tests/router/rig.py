"""Rigs for the router's tests: a data plane on port 0, and sets that are played by plain asyncio servers."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from router.config.reader import load
from router.dialects.contract import Dialect
from router.dialects.native import NativeDialect
from router.relay.inquiry import Inquiry
from router.relay.lists import Lists
from router.relay.plane import DataPlane
from router.relay.traffic import Traffic
from router.routing.table import Table
from router.wire.limits import Limits
from tests.ports import free_port as free_port

Play = Callable[["Conversation"], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Ended(Exception):
    """The router closed its connection to the set."""


@dataclass
class Conversation:
    """The set's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    """Counts this set's connections from 1."""

    async def head(self) -> bytes:
        """The next request's head, with its empty line. Raises `Ended` when the router closed instead."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Ended from error

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: head and body, the body's bytes as they came."""
        head = await self.head()
        try:
            return head, await self.body(head)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Ended from error

    async def body(self, head: bytes) -> bytes:
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
        if length is not None:
            return await self.reader.readexactly(int(length[1]))
        if b"transfer-encoding: chunked" not in head.lower():
            return b""
        raw = b""
        while True:
            line = await self.reader.readuntil(b"\r\n")
            raw += line
            size = int(line, 16)
            if size == 0:
                return raw + await self.reader.readuntil(b"\r\n")
            raw += await self.reader.readexactly(size + 2)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()


@dataclass
class FakeSet:
    """A set played by `play`, which is called for every connection. `requests` holds the (head, body) pairs that `play`
    records."""

    name: str
    play: Play
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    healthy: bool = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.play(Conversation(reader, writer, self.connections))
        except (Ended, ConnectionError):
            pass
        finally:
            writer.close()


def answering(answer: bytes = OK) -> Callable[[FakeSet], Play]:
    """A set that records every request and gives the same answer, on kept connections."""

    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            while True:
                fake.requests.append(await conversation.request())
                await conversation.send(answer)

        return play

    return make


@asynccontextmanager
async def a_set_that_answers() -> AsyncIterator[int]:
    """The port of a set that answers everything, its health check too, with 200."""
    fake = FakeSet("a", play=_nothing)
    fake.play = answering()(fake)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@dataclass
class Client:
    """A client's connection to the router."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next whole answer. Raises `IncompleteReadError` when it breaks off."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
        }
        status = int(lines[0].split(" ")[1])
        body = b""
        if status >= 200 and status not in (204, 304):
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += await self.reader.readexactly(size)
                    assert await self.reader.readexactly(2) == b"\r\n"
                await self.reader.readuntil(b"\r\n")
            else:
                body = await self.reader.read()
        return Answer(status, headers, body)

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def rest(self) -> bytes:
        """Everything up to the connection's end; a reset is an end, too."""
        data = b""
        try:
            while part := await self.reader.read(65536):
                data += part
        except ConnectionError:
            pass
        return data

    def close(self) -> None:
        self.writer.close()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document = json.loads(self.body)
        assert document["status"] == self.status
        return dict(document)


@dataclass
class Rig:
    """A data plane in front of fake sets."""

    plane: DataPlane
    port: int
    sets: dict[str, FakeSet]
    stack: AsyncExitStack

    @property
    def traffic(self) -> Traffic:
        return self.plane.traffic

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.stack.callback(writer.close)
        return Client(reader, writer)

    async def ask(self, data: bytes) -> Answer:
        """One request on a connection of its own."""
        client = await self.client()
        answer = await client.ask(data)
        client.close()
        return answer


MakeRig = Callable[..., Awaitable[Rig]]
YAML = """
version: 1
sets:
{sets}
default:
  weights: {{{weights}}}
{more}
"""


def table_for(ports: dict[str, int], weights: Mapping[str, float] | None = None, more: str = "") -> Table:
    """A table whose sets listen on 127.0.0.1; all keys go to the first set unless weights are given."""
    names = list(ports)
    weights = weights or {name: 100 if name == names[0] else 0 for name in names}
    text = YAML.format(
        sets="\n".join(f'  {name}: {{url: "http://127.0.0.1:{port}"}}' for name, port in ports.items()),
        weights=", ".join(f"{name}: {weight}" for name, weight in weights.items()),
        more=more,
    )
    return load(text.encode()).table


@asynccontextmanager
async def running(
    plays: dict[str, Callable[[FakeSet], Play]],
    *,
    weights: Mapping[str, float] | None = None,
    more: str = "",
    limits: Limits | None = None,
    lists: Lists | None = None,
    dialect: Dialect | None = None,
) -> AsyncIterator[Rig]:
    """A rig with one fake set per entry of `plays`."""
    # pytest-timeout cannot interrupt uvloop.
    async with asyncio.timeout(200), AsyncExitStack() as stack:
        sets: dict[str, FakeSet] = {}
        for name, make in plays.items():
            fake = FakeSet(name, play=_nothing)
            fake.play = make(fake)
            server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
            stack.callback(server.close)
            fake.port = server.sockets[0].getsockname()[1]
            sets[name] = fake
        table = table_for({name: fake.port for name, fake in sets.items()}, weights, more)
        limits = replace(limits or Limits(), sweep_s=0.02)
        plane = DataPlane(
            asyncio.get_running_loop(),
            "r1",
            table,
            dialect=dialect or NativeDialect(),
            limits=limits,
            merge=lists or Lists(),
            inquire=Inquiry,
        )
        sock = socket.create_server(("127.0.0.1", 0))
        plane.listen(sock)
        stack.push_async_callback(plane.drain, 0.0)
        yield Rig(plane, sock.getsockname()[1], sets, stack)


async def _nothing(conversation: Conversation) -> None:
    conversation.close()


async def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until `condition` holds; fail when it never does."""
    for _ in range(int(within_s / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    assert condition()
