"""What is fuzzed, and what must hold. A target takes any bytes and raises where something does not hold.

`framing`: a client's bytes become the same requests however they come in pieces, and what is forwarded is the same
one request to parsers of other makes. `answers`: so is the head of an answer. `mixing`: on two clients' connections at
once, with pieces, full pipes, retries and ends at any moment, nobody ever gets a byte of the other's.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import h11
import httptools

from router.wire.answer_framing import has_body, relayed_head
from router.wire.answer_head import parse_answer
from router.wire.fields import BadHead
from router.wire.framing import ChunkedBody, FramingError
from router.wire.limits import Limits
from router.wire.problems import Refusal
from router.wire.request_head import client_lines, parse_request
from router.wire.request_reader import RequestReader
from tests.router.wire.fuzz.mixing import mixing

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
