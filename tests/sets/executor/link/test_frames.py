"""Frames: however the bytes come in pieces, the same frames come out, and memory follows the frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sets.executor.link import frames
from sets.executor.link.frames import BODY_BYTES, HEAD, FrameBuffer, LinkError

Frames = list[tuple[int, int, int, bytes]]


def read(data: bytes, cuts: list[int]) -> Frames:
    """The frames in `data`, which comes in pieces of these lengths, and then at once."""
    buffer, found = FrameBuffer(), Frames()
    cuts = list(cuts)
    while data:
        space = buffer.space()
        count = min(len(space), cuts.pop(0) if cuts else len(data), len(data))
        space[:count] = data[:count]
        data = data[count:]
        found += [
            (kind, channel, stream, bytes(body)) for kind, channel, stream, body in buffer.filled(count)
        ]
    return found


def test_an_empty_buffer_has_room() -> None:
    assert len(FrameBuffer().space()) > 0


sizes = st.one_of(
    st.integers(0, 40), st.sampled_from([16_367, 16_368, 16_369, 70_000, BODY_BYTES - 1, BODY_BYTES])
)


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**64 - 1), sizes), max_size=6
    ),
    st.lists(st.integers(1, 100_000), max_size=40),
)
def test_pieces_of_any_length_give_the_same_frames(
    given_frames: list[tuple[int, int, int, int]], cuts: list[int]
) -> None:
    wanted = [(kind, channel, stream, bytes([kind]) * size) for kind, channel, stream, size in given_frames]
    data = b"".join(
        frames.frame(kind, body, stream=stream, channel=channel) for kind, channel, stream, body in wanted
    )
    assert read(data, cuts) == wanted
    assert read(data, [1] * 50 + cuts) == wanted


def test_a_frame_beyond_the_bound_is_refused_by_its_head() -> None:
    with pytest.raises(LinkError, match="the most is 262144"):
        read(HEAD.pack(BODY_BYTES + 1, 1, 0, 0, 0), [])


def test_reserved_bytes_are_zero() -> None:
    with pytest.raises(LinkError, match="reserved"):
        read(HEAD.pack(0, 1, 0, 7, 0), [])


def test_memory_of_a_large_frame_is_given_back() -> None:
    buffer = FrameBuffer()
    data = frames.frame(frames.DATA, bytes(BODY_BYTES))
    while data:
        space = buffer.space()
        space[: len(data)] = data[: len(space)]
        count = min(len(space), len(data))
        data = data[count:]
        assert all(len(body) == BODY_BYTES for _, _, _, body in buffer.filled(count))
    assert len(buffer.space()) > BODY_BYTES
    buffer.shrink()
    assert len(buffer.space()) < BODY_BYTES
