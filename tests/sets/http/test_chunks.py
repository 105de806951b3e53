"""A body of very small chunks costs the set much and carries little: its framing is bounded by its data."""

from __future__ import annotations

import pytest

from sets.http.chunks import FRAMING_BYTES, ChunkedBody
from sets.http.refusal import Refusal

ONE_BYTE = b"1\r\nx\r\n"


def taken(chunk: bytes, chunks: int) -> tuple[int, str]:
    """How many bytes of data are read, and why no more of them are."""
    body, size_bytes = ChunkedBody(), 0
    for _ in range(chunks):
        try:
            pieces, _ = body.read(chunk, 0)
        except Refusal as refusal:
            return size_bytes, str(refusal)
        size_bytes += sum(map(len, pieces))
    return size_bytes, ""


def test_chunks_of_one_byte_are_refused_once_they_are_many() -> None:
    # Each has five bytes of framing, and pays for two.
    size_bytes, why = taken(ONE_BYTE, FRAMING_BYTES)
    assert size_bytes == FRAMING_BYTES // 3
    assert why == "the body's chunks are too small: send more than two bytes in each"


def test_the_length_of_chunk_extensions_counts() -> None:
    chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    size_bytes, why = taken(chunk, 10_000)
    assert 100 < size_bytes < FRAMING_BYTES // 1000
    assert why


@pytest.mark.parametrize("size", [3, 16, 4096])
def test_chunks_of_three_bytes_or_more_are_never_too_many(size: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (size, bytes(size))
    assert taken(chunk, 60_000) == (60_000 * size, "")


def test_an_ordinary_amount_of_small_chunks_passes() -> None:
    assert taken(ONE_BYTE, 25_000) == (25_000, "")
