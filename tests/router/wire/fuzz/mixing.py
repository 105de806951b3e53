"""Two clients at once, with pieces, full pipes, retries and ends at any moment: neither gets a byte of the other's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import h11

from router.config.reader import load
from router.dialects.native import NativeDialect
from router.relay.plane import DataPlane
from router.wire import dial
from router.wire.downstream import ClientConnection
from tests.router.wire.fuzz.world import PlayedLoop, PlayedSocket

TABLE = load(b'{version: 1, sets: {s: {url: "http://127.0.0.1:1"}}, default: {weights: {s: 100}}}').table
MARKS = (b"a", b"b")
SIZES = (0, 1, 7, 100, 3_000, 40_000, 70_000, 300_000)


class World:
    """Two clients, a data plane, and a set whose connections are played."""

    def __init__(self) -> None:
        self.loop = PlayedLoop()
        self.plane = DataPlane(cast(Any, self.loop), "fuzz", TABLE, dialect=NativeDialect(), merge=_no_merge)
        self.set_side: list[SetSide] = []
        self.clients: list[PlayedSocket] = []
        for _ in MARKS:
            sock = PlayedSocket(self.loop)
            self.plane.clients.add(ClientConnection(self.plane, cast(socket.socket, sock), b"client"))
            self.clients.append(sock)

    def connect(self, *_: object) -> PlayedSocket:
        """In the place of `socket.socket` where the plane connects to the set."""
        sock = PlayedSocket(self.loop)
        self.set_side.append(SetSide(sock))
        return sock


class SetSide:
    """The set's end of one connection: reads requests as they come and answers as it is told."""

    def __init__(self, sock: PlayedSocket) -> None:
        self.sock = sock
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self._read = 0
        self._answered = False
        """… before the request was there whole; what is missing of it still comes, or the connection's end."""
        self.mark = b""
        self.waiting = False
        """A whole request is there, unanswered."""

    def read(self) -> None:
        """Take what came; every byte of a body must be of the client whose mark is in the target."""
        if self._read == len(self.sock.sent) or self.waiting:
            return
        self._parser.receive_data(bytes(self.sock.sent[self._read :]))
        self._read = len(self.sock.sent)
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Request):
                self.mark = event.target[1:2]
                assert dict(event.headers)[b"x-mark"] == self.mark
            elif isinstance(event, h11.Data):
                assert not bytes(event.data).strip(self.mark), "another client's bytes in a body"
            elif isinstance(event, h11.EndOfMessage):
                if not self._answered:
                    self.waiting = True
                    return
                self._next()
            else:
                assert event is h11.NEED_DATA, event
                return

    def answer_early(self, size: int) -> None:
        """Answer before the request has arrived."""
        if not self._answered and self._parser.their_state is h11.SEND_BODY:
            self._answered = True
            head = b"HTTP/1.1 413 Early\r\nX-Mark: %b\r\nContent-Length: %d\r\n\r\n" % (self.mark, size)
            self.sock.incoming.append(head + self.mark * size)

    def answer(self, size: int, chunked: bool, piece: int) -> None:
        """Answer with so many bytes of the asker's mark, in such pieces."""
        body = self.mark * size
        if chunked:
            raw = b"HTTP/1.1 200 OK\r\nX-Mark: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % self.mark
            raw += b"%x;e\r\n%b\r\n" % (size, body) if size else b""
            raw += b"0\r\n\r\n"
        else:
            raw = b"HTTP/1.1 200 OK\r\nX-Mark: %b\r\nContent-Length: %d\r\n\r\n%b" % (self.mark, size, body)
        piece = max(piece, size // 50)
        self.sock.incoming.extend(raw[at : at + piece] for at in range(0, len(raw), piece))
        self.waiting = False
        self._next()

    def _next(self) -> None:
        self._answered = False
        self._parser.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
        self._parser.send(h11.EndOfMessage())
        self._parser.start_next_cycle()


def _no_merge(*_: object) -> Any:
    raise AssertionError("no lists are asked for")


def mixing(data: bytes) -> None:
    """Three bytes a step: what happens, to whom, how much of it."""
    world = World()
    fake = SimpleNamespace(**vars(socket))
    fake.socket = world.connect
    with mock.patch.object(dial, "socket", fake):
        for what, who, much in _steps(data):
            _step(world, what, who, much)
            for side in world.set_side:
                if not side.sock.closed:
                    side.read()
        _come_to_an_end(world)


def _steps(data: bytes) -> Iterator[tuple[int, int, int]]:
    for at in range(0, min(len(data), 300) - 2, 3):
        yield data[at] % 10, data[at + 1], data[at + 2]


def _step(world: World, what: int, who: int, much: int) -> None:
    number = who % 2
    mark = MARKS[number]
    client = world.clients[number]
    sides = [side for side in world.set_side if not side.sock.closed]
    side = sides[who // 2 % len(sides)] if sides else None
    size = SIZES[much % 8]
    if what in (0, 1) and not client.closed:
        _ask(client, mark, size, piece=(1, 50, 5_000, 1 << 20)[who // 2 % 4], kind=much // 8)
    elif what == 2:
        client.room = size * much
    elif what == 3 and side is not None:
        side.sock.room = size * much
    elif what in (4, 5) and side is not None and side.waiting:
        side.answer(size, chunked=bool(much & 8), piece=(50_000, 7_000, 100, 1 << 20)[much // 16 % 4])
    elif what == 6 and side is not None:
        side.sock.ended = True
    elif what == 9 and side is not None:
        side.answer_early(size)
    elif what == 7 and much < 64:
        client.ended = True
    elif what == 8:
        world.loop.now += much / 100
        world.loop.fire_timers()
    for _ in range(1 + who // 64):
        world.loop.round()


def _ask(client: PlayedSocket, mark: bytes, size: int, *, piece: int, kind: int) -> None:
    line = b"GET /%b" % mark if not size else b"POST /%b" % mark
    raw = line + b" HTTP/1.1\r\nHost: h\r\nX-Mark: %b\r\n" % mark
    if size and kind & 1:
        raw += b"Transfer-Encoding: chunked\r\n\r\n%x;e\r\n%b\r\n0\r\n\r\n" % (size, mark * size)
    elif size:
        raw += b"Content-Length: %d\r\n\r\n%b" % (size, mark * size)
    else:
        raw += b"\r\n"
    head, rest = raw[:200], raw[200:]  # Pieces of one byte tell most in the head, and cost most elsewhere.
    client.incoming.extend(head[at : at + piece] for at in range(0, len(head), piece))
    piece = max(piece, 1000)
    client.incoming.extend(rest[at : at + piece] for at in range(0, len(rest), piece))


def _come_to_an_end(world: World) -> None:
    """Give everybody room and let the set answer everything: each client must get its own answers, complete except for
    the last."""
    for sock in list(world.loop.sockets.values()):
        sock.room = 1 << 30
    for _ in range(400):
        world.loop.settle()
        asked = False
        for side in world.set_side:
            if not side.sock.closed:
                side.read()
                if side.waiting:
                    side.answer(5, chunked=False, piece=1000)
                    asked = True
        if not world.loop.fire_timers() and not asked:
            break
    for mark, client in zip(MARKS, world.clients, strict=True):
        _check_answers(mark, bytes(client.sent))
    for client in world.clients:
        client.ended = True
    world.loop.settle()
    while world.loop.fire_timers():
        world.loop.settle()
    assert not world.plane.clients
    assert (world.plane.active, world.plane.traffic.pools["s"].inflight, world.plane.buffers.loans) == (
        0,
        0,
        0,
    )
    assert world.plane.traffic.pools["s"].reads == 0


def _check_answers(mark: bytes, got: bytes) -> None:
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    parser.receive_data(got)
    while parser.trailing_data[0]:
        if parser.our_state is h11.IDLE:
            parser.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
            parser.send(h11.EndOfMessage())
        event = parser.next_event()
        if event is h11.NEED_DATA:
            return
        if isinstance(event, h11.Response):
            own = b"x-router" in dict(event.headers)
            assert own or dict(event.headers)[b"x-mark"] == mark, "another client's answer"
        elif isinstance(event, h11.Data):
            assert own or not bytes(event.data).strip(mark), "another client's bytes in an answer"
        elif isinstance(event, h11.EndOfMessage):
            if parser.their_state is not h11.DONE:
                return
            parser.start_next_cycle()
        else:
            assert isinstance(event, h11.ConnectionClosed), event
            return
