"""Body framing, split anywhere: what goes out is the same as if it had come at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.wire.framing import ChunkedBody, FramingError, LengthBody

CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
EXTENSIONS = st.sampled_from([b"", b";a", b';a="b c"', b" ;x=1"])


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A chunked body as a client may write it, and its content."""
    parts = draw(CHUNKS)
    raw = b""
    for part in parts:
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(part)
        raw += size + draw(EXTENSIONS) + b"\r\n" + part + b"\r\n"
    raw += draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSIONS) + b"\r\n"
    raw += draw(st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC:d\r\n"])) + b"\r\n"
    return raw, b"".join(parts)


def feed(body: ChunkedBody | LengthBody, parts: list[bytes]) -> tuple[bytes, bytes]:
    """What goes out, and what is left over after the body's end."""
    out = left = b""
    for part in parts:
        if body.done:
            left += part
            continue
        buffer = bytearray(b"<<" + part + b">>")
        pieces, stop = body.feed(buffer, memoryview(buffer), 2, 2 + len(part))
        out += b"".join(bytes(piece) for piece in pieces)
        left += part[stop - 2 :] if body.done else b""
        assert body.done or stop == 2 + len(part)
    return out, left


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(chunked(), CUTS, st.binary(max_size=20))
def test_content_survives_any_split(body: tuple[bytes, bytes], cuts: list[int], after: bytes) -> None:
    raw, content = body
    reader = ChunkedBody(framed=False)
    assert feed(reader, split(raw + after, cuts)) == (content, after)
    assert reader.done


@given(chunked(), CUTS)
def test_framed_output_is_plain_and_holds_the_same(body: tuple[bytes, bytes], cuts: list[int]) -> None:
    raw, content = body
    framed, left = feed(ChunkedBody(framed=True), split(raw, cuts))
    assert left == b""
    assert b";" not in framed.replace(content, b"") or b";" in content
    again = ChunkedBody(framed=False)
    assert feed(again, [framed]) == (content, b"")
    assert again.done
    assert framed.endswith(b"0\r\n\r\n")


@given(st.binary(max_size=300), CUTS)
def test_any_bytes_end_in_a_body_or_an_error_the_same_way_for_every_split(
    raw: bytes, cuts: list[int]
) -> None:
    outcomes: list[tuple[bytes, bytes] | None] = []
    for parts in ([raw] if raw else [], split(raw, cuts), [raw[i : i + 1] for i in range(len(raw))]):
        try:
            outcomes.append(feed(ChunkedBody(framed=False), parts))
        except FramingError:
            outcomes.append(None)
    # An error may show sooner or later, but never only for some splits.
    assert len({outcome is None for outcome in outcomes}) == 1
    assert all(outcome == outcomes[0] for outcome in outcomes)


@given(st.binary(max_size=200), st.integers(0, 200), CUTS)
def test_a_length_is_kept_exactly(data: bytes, length: int, cuts: list[int]) -> None:
    reader = LengthBody(length)
    assert feed(reader, split(data, cuts)) == (data[:length], data[length:])
    assert reader.done == (len(data) >= length)
    assert reader.end_of_connection() == reader.done


def test_trailers_are_kept_apart_and_those_that_mean_framing_dropped() -> None:
    reader = ChunkedBody(framed=True, keep_trailers=True)
    raw = b"1\r\nx\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n"
    assert feed(reader, [raw])[0] == b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("raw", [b"1" * 17, b"1;" + b"x" * 5000, b"0\r\n" + b"A: " + b"x" * 20_000])
def test_lines_are_bounded_before_they_end(raw: bytes) -> None:
    with pytest.raises(FramingError):
        feed(ChunkedBody(), [raw[i : i + 100] for i in range(0, len(raw), 100)])


def test_a_flood_of_tiny_chunks_is_noticed() -> None:
    reader = ChunkedBody()
    feed(reader, [b"1\r\nx\r\n" * 1000])
    assert reader.slow
