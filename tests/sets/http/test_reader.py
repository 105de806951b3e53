"""Both of our readers of requests, on the same bytes: a set finds the requests that its router finds.

Seeds are the router's corpus; hypothesis changes some bytes and joins some cases. Left out are the differences that
corpus.txt gives reasons for: names with `_`, Upgrade, a second Content-Type, which frames nothing; and a tab behind
`chunked`, which the router's llhttp refuses and RFC 9110, 5.5 does not.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.wire.framing import FramingError
from router.wire.limits import Limits
from router.wire.problems import Refusal as RouterRefusal
from router.wire.request_reader import RequestReader as RouterReader
from sets.http.chunks import LINE_BYTES, TRAILER_BYTES
from sets.http.reader import RequestReader
from sets.http.refusal import Refusal
from tests.router.wire.cases import REQUESTS

Found = tuple[list[tuple[bytes, bytes, bytes]], bool]
"""Method, target and body of each whole request; and whether what follows them is refused."""


def by_set(raw: bytes) -> Found:
    found: list[tuple[bytes, bytes, bytes]] = []
    body = b""
    about = (b"", b"")
    try:
        for event in RequestReader().read(raw):
            if event is None:
                found.append((*about, body))
            elif isinstance(event, bytes):
                body += event
            else:
                scope = event.scope(None, None)
                query = b"?" + scope["query_string"] if scope["query_string"] else b""
                about, body = (scope["method"].encode(), scope["raw_path"] + query), b""
    except Refusal:
        return found, True
    return found, False


def by_router(raw: bytes) -> Found:
    found: list[tuple[bytes, bytes, bytes]] = []
    reader = RouterReader(Limits())
    reader.take(raw)
    try:
        while (head := reader.head()) is not None:
            target = head.path + (b"?" + head.query if head.query else b"")
            body = b""
            if head.has_body:
                framed = b"".join(reader.begin_body(head))
                if reader.body is not None:
                    break
                body = content(framed) if head.chunked else framed
            found.append((head.method, target, body))
    except (RouterRefusal, FramingError):
        return found, True
    return found, False


def content(framed: bytes) -> bytes:
    """The data of a chunked body, which the router has read: each size is right."""
    data = b""
    while (size := int(framed[: framed.index(b"\r\n")].partition(b";")[0], 16)) > 0:
        at = framed.index(b"\r\n") + 2
        data += framed[at : at + size]
        framed = framed[at + size + 2 :]
    return data


def comparable(raw: bytes) -> bool:
    low = raw.lower()
    odd = b"_" in low or b"upgrade" in low or b"chunked\t" in low.replace(b" ", b"")
    return not odd and low.count(b"content-type") < 2 and low.count(b"\n") < 90


SEEDS = [data for path in REQUESTS if len(data := path.read_bytes()) < 2_000 and comparable(data)]


@settings(max_examples=1_500, deadline=None)
@given(
    st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3),
    st.lists(
        st.tuples(
            st.integers(0, 1 << 16),
            st.sampled_from(b'\r\n\0 \t;:,./@#%="0159afgG\x7f\x80\xff'),
            st.booleans(),
        ),
        max_size=3,
    ),
)
def test_a_set_finds_what_its_router_finds(parts: list[bytes], changes: list[tuple[int, int, bool]]) -> None:
    raw = bytearray(b"".join(parts))
    for at, byte, added in changes:
        at %= len(raw)
        raw[at : at + (not added)] = bytes([byte])
    if comparable(bytes(raw)):
        assert by_set(bytes(raw)) == by_router(bytes(raw)), bytes(raw)


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("chunked", "body"),
    [
        (b"3 ; a = b\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b'3;a="b;c\\""\t;d\r\nabc\r\n000\r\n\r\n', b"abc"),
        (b"3\r\nabc\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n", b"abc"),
        (b"3;" + b"a" * (LINE_BYTES - 4) + b"\r\nabc\r\n0\r\n\r\n", b"abc"),
    ],
)
def test_chunked_bodies_are_read_by_the_standard(chunked: bytes, body: bytes) -> None:
    assert by_set(HEAD + chunked) == ([(b"POST", b"/", body)], False)
    in_pieces = RequestReader()
    events = [
        event for at in range(len(HEAD + chunked)) for event in in_pieces.read((HEAD + chunked)[at : at + 1])
    ]
    assert b"".join(event for event in events if isinstance(event, bytes)) == body
    assert events[-1] is None


@pytest.mark.parametrize(
    "chunked",
    [
        b" 3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3;a b\r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd",
        b"3\r\nabc\n0\r\n\r\n",
        b"1" * 16 + b"\r\n",
        b"3;" + b"a" * LINE_BYTES,
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n A: b\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: " + b"b" * TRAILER_BYTES,
    ],
)
def test_broken_chunks_are_refused(chunked: bytes) -> None:
    assert by_set(HEAD + chunked) == ([], True)
