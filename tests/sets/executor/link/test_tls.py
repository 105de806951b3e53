"""TLS under a link, on both event loops: bytes arrive whole however they are cut, and last words are heard."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sets.executor.link import tls
from sets.executor.link.names import Certificates, node_name
from tests.scheduler.conftest import until

LARGE = bytes(range(256)) * 4096
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run(conversation: Coroutine[Any, Any, None]) -> None:
        async def in_time() -> None:
            async with asyncio.timeout(60):
                await conversation

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(in_time())

    return run


class End(asyncio.BufferedProtocol):
    """One end of a connection. It has room for `room` bytes at a time."""

    def __init__(self, room: int = 4096) -> None:
        self.heard = bytearray()
        self.pieces = 0
        self.ended = False
        self.lost: list[Exception | None] = []
        self.paused = False
        self.transport: tls.TlsConnection | None = None
        self._space = memoryview(bytearray(room))

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self._space[:nbytes]
        self.pieces += 1

    def eof_received(self) -> None:
        self.ended = True
        self.it.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    @property
    def it(self) -> tls.TlsConnection:
        assert self.transport is not None
        return self.transport

    def says(self, *pieces: bytes) -> None:
        self.it.writelines(list(pieces))


Carry = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def as_it_comes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def byte_by_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await asyncio.sleep(0)


class Pair:
    """A set's end and a node's end, and the wire in between, which `carry` carries from the set to the node."""

    def __init__(self, certificates: Path, carry: Carry = as_it_comes, room: int = 4096) -> None:
        self._certificates = certificates
        self._carry = carry
        self.set_end, self.node_end = End(room), End(room)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Pair:
        self._loop = asyncio.get_running_loop()
        listener = await asyncio.start_server(self._between, "127.0.0.1", 0)
        self._listener = listener
        self._ours, theirs = socket.socketpair()
        accepting = asyncio.create_task(
            tls.accept(
                self._loop, self.node_end, theirs, Certificates(self._certificates / "n1").for_executor()
            )
        )
        port = listener.sockets[0].getsockname()[1]
        context = Certificates(self._certificates / "a").for_set()
        await tls.connect(self._loop, self.set_end, "127.0.0.1", port, context, node_name("n1"))
        await accepting
        return self

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(sock=self._ours)
        self.wires = [writer, to_writer]
        for carry, source, sink in ((self._carry, reader, to_writer), (as_it_comes, to_reader, writer)):
            self._tasks.append(asyncio.create_task(self._pump(carry, source, sink)))

    async def _pump(self, carry: Carry, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await carry(source, sink)
            if sink.can_write_eof():
                sink.write_eof()

    async def __aexit__(self, *_: object) -> None:
        for end in (self.set_end, self.node_end):
            end.it.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self.wires:
            wire.transport.abort()
        self._listener.close()
        await until(lambda: len(self.set_end.lost) == len(self.node_end.lost) == 1)


def test_what_is_said_arrives_in_both_directions(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        async with Pair(certificates) as pair:
            pair.set_end.says(b"head", LARGE)
            pair.node_end.says(LARGE, b"tail")
            await until(lambda: pair.node_end.heard == b"head" + LARGE)
            await until(lambda: pair.set_end.heard == LARGE + b"tail")
            assert pair.node_end.it.get_extra_info("peercert")["subjectAltName"]

    run(conversation())


@pytest.mark.parametrize("room", [1, 100, 1 << 20])
def test_bytes_arrive_whole_however_little_room_there_is(certificates: Path, run: Run, room: int) -> None:
    async def conversation() -> None:
        async with Pair(certificates, room=room) as pair:
            pair.set_end.says(LARGE[:50_000])
            pair.set_end.says(b"and more")
            await until(lambda: pair.node_end.heard == LARGE[:50_000] + b"and more")

    run(conversation())


def test_bytes_arrive_whole_however_the_network_cuts_them(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        async with Pair(certificates, byte_by_byte) as pair:
            pair.set_end.says(b"one")
            pair.set_end.says(LARGE[:1000], b"two")
            await until(lambda: pair.node_end.heard == b"one" + LARGE[:1000] + b"two")

    run(conversation())


def test_small_pieces_that_are_said_together_arrive_together(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        async with Pair(certificates) as pair:
            pair.set_end.says(b"a", b"b", b"c")
            await until(lambda: pair.node_end.heard == b"abc")
            assert pair.node_end.pieces == 1

    run(conversation())


def test_the_last_words_of_an_end_that_closes_are_heard(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        async with Pair(certificates) as pair:
            # The node has said much that the set has not read when it leaves.
            pair.node_end.says(LARGE)
            pair.set_end.says(b"farewell")
            pair.set_end.it.close()
            pair.set_end.says(b"too late")
            await until(lambda: pair.node_end.ended)
            assert pair.node_end.heard == b"farewell"
            # Both close then, by themselves.
            await until(lambda: pair.set_end.lost == pair.node_end.lost == [None])

    run(conversation())


def test_a_reader_that_stops_pauses_the_writer(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        go_on = asyncio.Event()

        async def stopped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1 << 12):
                writer.write(data)
                if paused:
                    await go_on.wait()

        paused: list[bool] = []
        async with Pair(certificates, stopped) as pair:
            pair.set_end.it.set_write_buffer_limits(high=1 << 16)
            paused.append(True)
            said = 0
            while not pair.set_end.paused:
                pair.set_end.says(LARGE)
                said += 1
            go_on.set()
            await until(lambda: not pair.set_end.paused)
            await until(lambda: len(pair.node_end.heard) == said * len(LARGE))

    run(conversation())


def test_bytes_that_are_no_tls_end_the_connection(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        async with Pair(certificates) as pair:
            pair.wires[1].write(b"\x17\x03\x03\x00\x20" + bytes(32))
            await until(lambda: pair.node_end.lost != [])
            assert isinstance(pair.node_end.lost[0], ssl.SSLError)
            assert pair.node_end.heard == b""
            # The other end is told, and ends as well.
            await until(lambda: pair.set_end.lost != [])

    run(conversation())


def test_a_connection_that_is_cut_is_lost_at_both_ends(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        async with Pair(certificates) as pair:
            for wire in pair.wires:
                wire.transport.abort()
            await until(lambda: len(pair.set_end.lost) == len(pair.node_end.lost) == 1)

    run(conversation())


def test_a_caller_who_waits_no_longer_leaves_no_connection(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        end = End()
        context = Certificates(certificates / "n1").for_executor()
        accepting = asyncio.create_task(tls.accept(loop, end, ours, context))
        to_them = ssl.MemoryBIO()
        begun = (
            Certificates(certificates / "a").for_set().wrap_bio(ssl.MemoryBIO(), to_them, server_hostname="x")
        )
        with pytest.raises(ssl.SSLWantReadError):
            begun.do_handshake()
        await loop.sock_sendall(theirs, to_them.read())
        # It answers, and waits for the rest.
        assert await loop.sock_recv(theirs, 1 << 16)
        accepting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await accepting
        # Its other end sees the end, after what was said before.
        with contextlib.suppress(ConnectionResetError):
            while await loop.sock_recv(theirs, 1 << 16):
                pass
        theirs.close()
        assert end.transport is None
        assert end.lost == []

    run(conversation())


def test_another_end_that_leaves_amid_the_handshake_is_an_error(certificates: Path, run: Run) -> None:
    async def conversation() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.close()
        context = Certificates(certificates / "n1").for_executor()
        with pytest.raises(ConnectionError):
            await tls.accept(loop, End(), ours, context)

    run(conversation())
