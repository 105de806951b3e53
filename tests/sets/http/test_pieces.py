"""However bytes are cut on their way, a set finds the same requests in them, and each has its own bytes alone.

Requests are made by hypothesis, whole ones (whose bodies are known) and broken ones (whose answers must only be the
same in all pieces). The way past the parser is open to small bodies here, so that many take it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sets.http import exchange
from tests.router.wire.cases import REQUESTS
from tests.sets.http.wire import Talk

TEMPTING = [
    b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n",
]
BODIES = st.lists(st.sampled_from(TEMPTING) | st.binary(max_size=100), max_size=6).map(b"".join)
FIELDS = st.sampled_from(
    [b"", b"Connection: keep-alive\r\n", b"X-A:\r\n", b"X-A: b \t\r\n", b"Expect: 100-continue\r\n"]
)


@dataclass
class Sent:
    """A request as it is sent, and its body."""

    raw: bytes
    body: bytes


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    body = draw(BODIES)
    head = b"POST /a HTTP/1.1\r\nHost: x\r\n" + draw(FIELDS)
    framing = draw(st.sampled_from(["length", "chunked", "none"]))
    if framing == "none":
        return Sent(head + b"\r\n", b"")
    if framing == "length":
        return Sent(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), body)
    chunked = b""
    at = 0
    while at < len(body):
        size = draw(st.integers(1, len(body) - at))
        extension = draw(st.sampled_from([b"", b";a=b", b';a="b;c"']))
        chunked += b"%x%b\r\n%b\r\n" % (size, extension, body[at : at + size])
        at += size
    chunked += b"0\r\n" + draw(st.sampled_from([b"", b"X-Account: evil\r\n", b"A: b\r\nC:\r\n"])) + b"\r\n"
    return Sent(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked, body)


def cut(data: bytes, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    at = 0
    while at < len(data):
        size = chance.choice([1, 2, 3, 10, 50, 300, 2_000])
        yield data[at : at + size]
        at += size


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_BYTES", 100)
    monkeypatch.setattr(exchange, "SMALL_BYTES", 8)


async def told(pieces: list[bytes], breaths: int) -> tuple[list[tuple[bytes, bytes]], list[int], bool]:
    """Fields and bodies of the requests, the answers, and whether the connection ended."""
    talk = Talk()
    for piece in pieces:
        await talk.offer(piece)
        for _ in range(breaths):
            await asyncio.sleep(0)
    await talk.settle()
    outcome = (
        [
            (b"".join(name + b":" + value for name, value in scope["headers"]), body)
            for scope, body in talk.requests
        ],
        [status for status in talk.statuses() if status != 100],
        talk.wire.ended,
    )
    await talk.end()
    return outcome


@settings(max_examples=150, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=5), st.integers(0, 1 << 32), st.integers(0, 3))
def test_each_request_has_its_own_bytes_alone(sent: list[Sent], seed: int, breaths: int) -> None:
    raw = b"".join(one.raw for one in sent)
    got, statuses, ended = asyncio.run(told(list(cut(raw, seed)), breaths))
    assert [body for _, body in got] == [one.body for one in sent]
    assert not [fields for fields, _ in got if b"evil" in fields]
    assert (statuses, ended) == ([204] * len(sent), False)


SEEDS = [data for path in REQUESTS if len(data := path.read_bytes()) < 2_000]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(SEEDS) | requests().map(lambda one: one.raw), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.integers(0, 1 << 16), st.sampled_from(b"\r\n\0 \t;:,0159afgG\x80\xff"), st.booleans()),
        max_size=3,
    ),
    st.integers(0, 1 << 32),
    st.integers(0, 3),
)
def test_broken_requests_are_as_broken_in_any_pieces(
    parts: list[bytes], changes: list[tuple[int, int, bool]], seed: int, breaths: int
) -> None:
    raw = bytearray(b"".join(parts))
    for at, byte, added in changes:
        at %= len(raw)
        raw[at : at + (not added)] = bytes([byte])
    whole = asyncio.run(told([bytes(raw)], 0))
    assert asyncio.run(told(list(cut(bytes(raw), seed)), breaths)) == whole
