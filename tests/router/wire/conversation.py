r"""A small language for what happens on the wire in time: who sends what, who waits, closes or resets.

The first line is `# why`. Then one step a line; bytes are written as in Python, `\r\n` and `\x00` included:

    limits header_s=0.1             times and sizes of the router (wire.limits) for this conversation
    > GET / HTTP/1.1\r\n            the client sends
    < HTTP/1.1 200 OK\r\n           the client gets exactly this (but for the line with the request's id)
    < problem 408 headers-stalled   the client gets this problem, whole
    < end                           … and the connection ends, tidily or by a reset
    client closes | half-closes | resets | stops reading
    client floods 5000000           the client sends so many bytes, as far as they are taken
    client repeats \r\n             the client sends this again and again, every 0.05 s
    set accepts                     the router opens another connection to the set
    set< GET / HTTP/1.1\r\n         the set gets this; of a request's head only what was written down
    set> HTTP/1.1 200 OK\r\n        the set sends
    set< end                        the router closed the connection to the set
    set closes | half-closes | resets | stops reading
    set floods 5000000
    set is deaf | is away           from now on it takes no connection: its backlog is full, or it refuses
    set hears again                 a deaf one has room, which the kernel tries a second later
    pause                           0.15 s
    counts cancelled=1              what the router counted by now
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from router.wire.limits import Limits
from tests.router.rig import (
    Conversation,
    Ended,
    FakeSet,
    Play,
    Rig,
    eventually,
    free_port,
    running,
    table_for,
)

REQUEST_ID = re.compile(rb"(?m)^X-Request-Id: [^\r\n]*\r\n")
PAUSE_S = 0.15
MORE = "retry: {attempts: 1}"


class Peer:
    """One side's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._got = b""
        self._sending: list[asyncio.Task[None]] = []

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def flood(self, count: int) -> None:
        async def send() -> None:
            with suppress(ConnectionError):
                for _ in range(0, count, 65536):
                    await self.send(b"x" * 65536)

        self._sending.append(asyncio.create_task(send()))

    def repeat(self, data: bytes) -> None:
        async def send() -> None:
            with suppress(ConnectionError):
                while True:
                    await self.send(data)
                    await asyncio.sleep(0.05)

        self._sending.append(asyncio.create_task(send()))

    async def expect(self, wanted: bytes) -> None:
        """Expect exactly these bytes next."""
        while len(self._got) < len(wanted):
            part = await self.reader.read(65536)
            assert part, f"wanted {wanted!r}, it ended with {self._got!r}"
            self._got = REQUEST_ID.sub(b"", self._got + part)
        assert self._got[: len(wanted)] == wanted
        self._got = self._got[len(wanted) :]

    async def expect_head(self, wanted: bytes) -> None:
        """Expect a head that begins with these bytes."""
        head, self._got = await self._head()
        assert head.startswith(wanted), head

    async def _head(self) -> tuple[bytes, bytes]:
        """The next head, and what came after it."""
        got, self._got = self._got, b""
        while b"\r\n\r\n" not in got:
            part = await self.reader.read(65536)
            assert part, f"wanted a head, it ended with {got!r}"
            got += part
        head, _, rest = got.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n", rest

    async def expect_end(self) -> None:
        try:
            rest = await self.reader.read(65536)
        except ConnectionError:
            rest = b""
        assert self._got + rest == b""

    async def expect_problem(self, status: str, name: str) -> None:
        head, body = await self._head()
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None, head
        missing = int(length[1]) - len(body)
        problem = json.loads(body + await self.reader.readexactly(missing))
        assert head.startswith(b"HTTP/1.1 " + status.encode()), head
        assert problem["type"].endswith(f"/router-{name}"), problem

    def do(self, verb: str) -> None:
        """Close, half-close, reset, or stop reading."""
        if verb == "closes":
            self.writer.close()
        elif verb == "half-closes":
            self.writer.write_eof()
        elif verb == "stops reading":
            self.writer.transport.pause_reading()  # type: ignore[attr-defined]
        else:
            assert verb == "resets", verb
            linger = b"\1\0\0\0\0\0\0\0"
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()

    def end(self) -> None:
        for task in self._sending:
            task.cancel()
        self.writer.close()


class DeafSet:
    """A port whose backlog is full, so that the kernel drops what else asks for a connection."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self.sock.getsockname()[1]
        # One fits. The others are there in case that a kernel takes more.
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))

    def hear(self) -> None:
        """Make room; what still waits to be accepted is gone."""
        for filler in self._fillers:
            filler.close()
        self.sock.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.sock.accept()[0].close()

    def close(self) -> None:
        for each in (*self._fillers, self.sock):
            each.close()


class Stage:
    """Client, router and set, and the steps that they take."""

    def __init__(self, rig: Rig, accepted: asyncio.Queue[Peer]) -> None:
        self._rig = rig
        self._accepted = accepted
        self.client: Peer | None = None
        self.set: Peer | None = None
        self.peers: list[Peer] = []
        self._deaf: DeafSet | None = None

    async def step(self, line: str) -> None:
        if line == "pause":
            await asyncio.sleep(PAUSE_S)
        elif line == "set accepts":
            self.set = await self._accepted.get()
            self.peers.append(self.set)
        elif line == "set is deaf":
            self._deaf = DeafSet()
            self._rig.stack.callback(self._deaf.close)
            self._move_set(self._deaf.port)
        elif line == "set is away":
            self._move_set(free_port())
        elif line == "set hears again":
            assert self._deaf is not None, "no `set is deaf` so far"
            await self._hear(self._deaf)
        elif line.startswith("counts "):
            for count in line.removeprefix("counts ").split():
                await self._count(*count.split("="))
        elif line.startswith("set"):
            assert self.set is not None, "no `set accepts` so far"
            await self._act(self.set, line.removeprefix("set"))
        else:
            if self.client is None:
                self.client = Peer(*await asyncio.open_connection("127.0.0.1", self._rig.port))
                self.peers.append(self.client)
            await self._act(self.client, line.removeprefix("client"))

    async def _act(self, peer: Peer, words: str) -> None:
        what = words[1:].strip() if words[0] in "<> " else words
        if words.startswith(">"):
            await peer.send(raw(what))
        elif words.startswith("< problem "):
            _, status, name = what.split(" ")
            await peer.expect_problem(status, name)
        elif words == "< end":
            await peer.expect_end()
        elif words.startswith("<"):
            if peer is self.set and re.match(r"[A-Z]+ /", what):
                await peer.expect_head(raw(what))
            else:
                await peer.expect(raw(what))
        elif what.startswith("floods "):
            peer.flood(int(what.removeprefix("floods ")))
        elif what.startswith("repeats "):
            peer.repeat(raw(what.removeprefix("repeats ")))
        else:
            peer.do(what)

    def _move_set(self, port: int) -> None:
        """Change the set's address."""
        self._rig.traffic.adopt(table_for({"a": port}, more=MORE))

    async def _hear(self, deaf: DeafSet) -> None:
        deaf.hear()
        server = await asyncio.start_server(self._rig.sets["a"].serve, sock=deaf.sock)
        self._rig.stack.callback(server.close)

    async def _count(self, name: str, wanted: str) -> None:
        traffic = self._rig.traffic
        where = next(each for each in (traffic.stats["a"], traffic, self._rig.plane) if hasattr(each, name))
        await eventually(lambda: getattr(where, name) == int(wanted))

    async def settled(self) -> None:
        """Check that nothing is left behind in the router."""
        plane = self._rig.plane
        for peer in self.peers:
            peer.end()
        await eventually(lambda: plane.active == 0 and plane.traffic.pools["a"].inflight == 0)
        assert plane.traffic.pools["a"].reads == 0
        await eventually(lambda: not plane.clients and plane.buffers.loans == 0)


def raw(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def limits_of(words: list[str]) -> Limits:
    """Times as numbers, sizes as whole ones."""
    usual = Limits()
    given = {}
    for word in words:
        name, _, value = word.partition("=")
        given[name] = type(getattr(usual, name))(value)
    return replace(usual, **given)


async def play(path: Path) -> None:
    """Play a conversation; fail at the first step that goes differently."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# "), "the first line says why"
    steps = [line for line in lines[1:] if line]
    limits = Limits()
    if steps[0].startswith("limits "):
        limits = limits_of(steps.pop(0).split()[1:])
    accepted: asyncio.Queue[Peer] = asyncio.Queue()

    def accepting(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            accepted.put_nowait(Peer(conversation.reader, conversation.writer))
            with suppress(Ended):
                await conversation.writer.wait_closed()

        return play

    async with running({"a": accepting}, more=MORE, limits=limits) as rig:
        stage = Stage(rig, accepted)
        for number, step in enumerate(steps, 1):
            try:
                await asyncio.wait_for(stage.step(step), 10)
            except Exception as error:
                raise AssertionError(f"step {number}, {step}: {error!r}") from error
        await stage.settled()
