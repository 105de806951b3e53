"""Where a body comes from: lengths where they are known, and never half an input for a whole one."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.client.body import (
    SMALL_BYTES,
    BytesSource,
    FileSource,
    PipeSource,
    Source,
    descriptor_source,
    source_of,
)
from ops.client.errors import InputFailed


def drained(source: Source, limit: int = 7) -> bytes:
    pieces = []
    while piece := bytes(source.read(limit)):
        assert len(piece) <= limit
        pieces.append(piece)
    return b"".join(pieces)


@given(st.binary(max_size=100), st.integers(1, 50))
def test_bytes_keep_their_content_in_pieces_of_any_size(data: bytes, limit: int) -> None:
    source = source_of(data)
    assert source.length == len(data)
    assert drained(source, limit) == data


@given(st.lists(st.binary(max_size=20), max_size=10), st.integers(1, 8))
def test_an_iterables_empty_pieces_do_not_end_it(pieces: list[bytes], limit: int) -> None:
    source = source_of(iter(pieces))
    assert source.length is None
    assert drained(source, limit) == b"".join(pieces)


def test_a_file_is_sent_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"0123456789" * 10)
    with (tmp_path / "in").open("rb") as file:
        file.read(3)  # Python has read further ahead than this by now.
        source = source_of(file)
        assert isinstance(source, FileSource)
        assert source.length == 97
        assert drained(source) == (b"0123456789" * 10)[3:]


def test_a_file_that_grows_is_sent_at_its_first_length_and_one_that_shrinks_is_an_error(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").write_bytes(b"x" * 100)
    with (tmp_path / "in").open("r+b") as file:
        source = source_of(file)
        os.truncate(tmp_path / "in", 200)
        assert len(drained(source)) == 100
        file.seek(0)
        source = source_of(file)
        source.read(10)
        os.truncate(tmp_path / "in", 20)
        with pytest.raises(InputFailed, match="bytes missing: 180"):
            drained(source)


def test_a_file_of_proc_says_nothing_of_its_size_and_is_sent_all_the_same() -> None:
    with open("/proc/self/status", "rb") as file:
        source = source_of(file)
        assert source.length
        assert drained(source).startswith(b"Name:")


def test_a_file_object_without_a_descriptor_is_read(tmp_path: Path) -> None:
    assert drained(source_of(io.BytesIO(b"in memory"))) == b"in memory"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def test_a_pipe_that_ends_early_has_a_length(pipe: tuple[int, int]) -> None:
    far, near = pipe
    os.write(near, b"short")
    os.close(near)
    with open(far, "rb", closefd=False) as file:
        source = source_of(file)
    assert isinstance(source, BytesSource)
    assert source.length == 5


def test_a_pipe_that_stays_open_gives_what_it_has_and_then_its_descriptor_to_wait_on(
    pipe: tuple[int, int],
) -> None:
    far, near = pipe
    os.write(near, b"first")
    with open(far, "rb", closefd=False) as file:
        source = source_of(file)
    assert isinstance(source, PipeSource)
    assert source.length is None
    assert (source.fd, bytes(source.read(100))) == (None, b"first")
    assert source.fd == far
    os.write(near, b"second")
    assert source.read(100) == b"second"
    os.close(near)
    assert source.read(100) == b""


def test_a_pipe_with_more_than_a_small_body_is_not_held(pipe: tuple[int, int]) -> None:
    far, near = pipe
    os.write(near, b"x" * SMALL_BYTES)
    os.close(near)
    with open(far, "rb", closefd=False) as file:
        source = source_of(file)
    assert source.length is None
    assert len(drained(source, 1000)) == SMALL_BYTES


def test_a_folder_as_input_is_an_error_that_says_so(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(InputFailed, match="directory"):
            descriptor_source(fd)
    finally:
        os.close(fd)
