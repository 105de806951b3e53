"""The excerpt of an output in a row: its beginning and its end, from pieces of any size, without a broken character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.excerpt import HEAD_BYTES, TAIL_BYTES, Excerpt, Shown


@given(st.lists(st.integers(0, 3 * HEAD_BYTES), max_size=8))
def test_the_pieces_make_no_difference(sizes: list[int]) -> None:
    excerpt, whole = Excerpt(), b""
    for number, size in enumerate(sizes):
        piece = bytes((number + index) % 251 for index in range(size))
        excerpt, whole = excerpt.then(piece), whole + piece
    assert excerpt == Excerpt.of(whole)
    assert excerpt.head == whole[:HEAD_BYTES]
    assert excerpt.tail == whole[HEAD_BYTES:][-TAIL_BYTES:]
    assert excerpt.size_bytes == len(whole)


@given(st.integers(0, 5), st.sampled_from("aé€😀"), st.integers(0, 20_000))
def test_no_character_is_broken_at_a_cut(offset: int, character: str, count: int) -> None:
    text = "x" * offset + character * count
    shown = Excerpt.of(text.encode()).text()
    assert "\ufffd" not in shown.head + shown.tail
    assert text.startswith(shown.head)
    assert text.endswith(shown.tail)
    size_bytes = len(text.encode())
    assert len((shown.head + shown.tail).encode()) == size_bytes - shown.cut_bytes
    if size_bytes <= HEAD_BYTES + TAIL_BYTES:
        assert (shown.head + shown.tail, shown.cut_bytes) == (text, 0)
    else:
        assert shown.cut_bytes < size_bytes - HEAD_BYTES - TAIL_BYTES + 8


@given(st.binary(max_size=64), st.integers(0, 10_000))
def test_bytes_that_are_no_text_are_counted_too(data: bytes, repeat: int) -> None:
    whole = (data * repeat)[:20_000]
    shown = Excerpt.of(whole).text()
    assert 0 <= shown.cut_bytes <= len(whole)
    assert (shown.cut_bytes > 0) == (len(whole) > HEAD_BYTES + TAIL_BYTES)


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (b"", Shown("", "", 0)),
        (b"short", Shown("short", "", 0)),
        (b"\xff\xc3", Shown("\ufffd\ufffd", "", 0)),
        (b"a" * 4096, Shown("a" * 4096, "", 0)),
        (b"a" * 4097, Shown("a" * 4096, "a", 0)),
        (b"a" * 4095 + "é".encode(), Shown("a" * 4095, "é", 0)),
        (b"a" * 8193, Shown("a" * 4096, "a" * 4096, 1)),
    ],
)
def test_the_edges(output: bytes, shown: Shown) -> None:
    assert Excerpt.of(output).text() == shown


def test_a_row_without_a_tail_says_how_much_is_behind_its_head() -> None:
    """Of a task that succeeded."""
    assert Excerpt(b"a" * 4096, b"", 70_000).text() == Shown("a" * 4096, "", 70_000 - 4096)
