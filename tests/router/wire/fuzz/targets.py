"""What is fuzzed, and what must hold. A target takes any bytes and raises where something does not hold.

`framing`: a client's bytes become the same requests however they come in pieces, and what is forwarded is the same
one request to parsers of other makes. `answers`: so is the head of an answer. `mixing`: on two clients' connections at
once, with pieces, full pipes, retries and ends at any moment, nobody ever gets a byte of the other's.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import h11
import httptools

from router.config.reader import load
from router.dialects.native import NativeDialect
from router.relay.plane import DataPlane
from router.wire import dial
from router.wire.answer_framing import has_body, relayed_head
from router.wire.answer_head import parse_answer
from router.wire.downstream import ClientConnection
from router.wire.fields import BadHead
from router.wire.framing import ChunkedBody, FramingError
from router.wire.limits import Limits
from router.wire.problems import Refusal
from router.wire.request_head import client_lines, parse_request
from router.wire.request_reader import RequestReader
from tests.router.wire.fuzz.world import PlayedLoop, PlayedSocket

SMALL = Limits(request_line_bytes=512, head_bytes=1024)
MAX_REQUESTS = 50


# Framing.


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request as a set gets it, without its id: its head, and its body as framed."""

    head: bytes
    body: bytes
    whole: bool


def read(pieces: list[bytes]) -> tuple[list[Forwarded], bool]:
    """The requests in a client's bytes, and whether what follows them is refused."""
    reader = RequestReader(SMALL)
    requests: list[Forwarded] = []
    head = b""
    body = b""

    def end() -> None:
        requests.append(Forwarded(head, body, not in_body(reader)))

    try:
        for piece in pieces:
            if in_body(reader):
                body += b"".join(reader.read_body(piece, memoryview(piece), len(piece)))
                if in_body(reader):
                    continue
                end()
            else:
                reader.take(piece)
            while not in_body(reader) and len(requests) < MAX_REQUESTS:
                begun = reader.head()
                if begun is None:
                    break
                begun.request_id = begun.traceparent = b"-"
                head = begun.forward(client_lines(b"client"), b"set")
                body = b"".join(reader.begin_body(begun)) if begun.has_body else b""
                if not in_body(reader):
                    end()
    except (Refusal, FramingError):
        return requests, True
    if in_body(reader):
        end()
    return requests, False


def in_body(reader: RequestReader) -> bool:
    return reader.body is not None


def pieces_of(data: bytes, cuts: bytes) -> list[bytes]:
    """`data` in pieces of the lengths in `cuts`, the rest in one."""
    pieces = []
    for cut in cuts:
        if not data:
            break
        pieces.append(data[: cut or 1])
        data = data[cut or 1 :]
    return [*pieces, data] if data else pieces


def framing(data: bytes) -> None:
    """The first byte says how many bytes after it are lengths of pieces; then comes what the client sends."""
    count = data[0] % 32 if data else 0
    cuts, stream = data[1 : 1 + count], data[1 + count :]
    at_once = read([stream] if stream else [])
    for cut in (cuts, b"\1" * len(stream)):
        in_pieces = read(pieces_of(stream, cut))
        whole = [request for request in in_pieces[0] if request.whole]
        assert whole == [request for request in at_once[0] if request.whole], (at_once, in_pieces)
        assert in_pieces[1] == at_once[1], (at_once, in_pieces)
    for request in at_once[0]:
        if request.whole:
            agrees(request)


def agrees(request: Forwarded) -> None:
    """h11 and llhttp read the same one request in what is forwarded."""
    raw = request.head + request.body
    content = b""
    if b"\r\nTransfer-Encoding: chunked\r\n" in request.head:
        plain = ChunkedBody(framed=False)
        pieces, end = plain.feed(request.body, memoryview(request.body), 0, len(request.body))
        assert (plain.done, end) == (True, len(request.body))
        content = b"".join(pieces)
    else:
        content = request.body
    method, target, _ = request.head.split(b"\r\n", 1)[0].split(b" ")

    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    parser.receive_data(raw)
    head = parser.next_event()
    assert isinstance(head, h11.Request)
    assert (head.method, head.target) == (method, target)
    got = b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        got += bytes(event.data)
    assert got == content
    assert list(event.headers) == []
    assert parser.trailing_data[0] == b""

    second = _Second()
    llhttp = httptools.HttpRequestParser(second)
    try:
        llhttp.feed_data(raw)
    except httptools.HttpParserUpgrade:
        raise AssertionError("an upgrade was forwarded") from None
    assert (second.ended, second.target, second.body) == (1, target, content)


class _Second:
    """What llhttp reads."""

    def __init__(self) -> None:
        self.ended = 0
        self.target = b""
        self.body = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended += 1


# Mixing.

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


# Answers.

ASKED = parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", SMALL)


def answers(data: bytes) -> None:
    """A head that is taken for an answer's is the same to llhttp, and the relayed one to h11."""
    stop = data.find(b"\r\n\r\n") + 4
    if stop == 3:
        return
    try:
        answer = parse_answer(data[:stop])
    except BadHead:
        return
    if answer.status == 101:
        return  # Refused by the connection (upstream.py).
    second = _SecondAnswer()
    llhttp = httptools.HttpResponseParser(second)
    with suppress(httptools.HttpParserUpgrade):
        llhttp.feed_data(data[:stop])
    assert llhttp.get_status_code() == answer.status
    assert second.fields == [(name, value) for _, name, value, _ in answer.fields]
    bodied = has_body(answer, ASKED)
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    parser.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(relayed_head(answer, ASKED, bodied=bodied, keep=True))
    head = parser.next_event()
    assert isinstance(head, (h11.Response, h11.InformationalResponse)), head
    assert head.status_code == answer.status
    framed = {
        name: value for name, value in head.headers if name in (b"content-length", b"transfer-encoding")
    }
    if answer.status >= 200 and bodied:
        length = answer.content_length
        wanted = {b"transfer-encoding": b"chunked"} if length is None else {b"content-length": b"%d" % length}
        assert framed == wanted


class _SecondAnswer:
    """What llhttp reads of a head."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))


TARGETS = {"framing": framing, "answers": answers, "mixing": mixing}
