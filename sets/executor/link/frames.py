"""The frames of a link, as bytes: PROTOCOL.md is the contract. A frame is a head and a body of bounded length."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

BODY_BYTES: Final = 262_144
"""Most bytes of one frame's body: a task with the largest command line and inline input fits."""
HEAD: Final = struct.Struct("<IBBHQ")
"""Length of the body, kind, channel, reserved, stream."""
CLOCK: Final = struct.Struct("<Q")
"""The body of BEAT and GRANT: microseconds of the executor's clock."""
COUNT: Final = struct.Struct("<I")
"""The body of CREDIT: bytes."""

HELLO, GRANT, EXPECT, DISCARD, TASK, KILL, READ, RELEASE, CONTENT, SHOW = range(1, 11)
WELCOME, BEAT, HEALTH, EXPECTED, READY, FREED, LOST, LEFT_OVER, UNFIT, OUTPUT, EXIT, GOODBYE = range(32, 44)
DATA, END, CREDIT, CLOSE, FAULT = 64, 65, 66, 67, 68

STDIN, STDOUT, STDERR = 0, 1, 2
"""Channels of a stream."""

_SMALL_BYTES: Final = 16_384
_ROOM_BYTES: Final = 65_536
_LARGE_BYTES: Final = HEAD.size + BODY_BYTES + _ROOM_BYTES

Frame = tuple[int, int, int, memoryview]
"""Kind, channel, stream, body. The body is valid until the next frame is asked for."""


class LinkError(Exception):
    """The other end of a link broke the rules, so the link ends."""


def frame(kind: int, body: bytes = b"", *, stream: int = 0, channel: int = 0) -> bytes:
    """Return one frame. The body of DATA may follow separately, see `data_head`."""
    return HEAD.pack(len(body), kind, channel, 0, stream) + body


def data_head(size_bytes: int, stream: int, channel: int) -> bytes:
    """Return the head of a DATA frame whose body of `size_bytes` follows."""
    return HEAD.pack(size_bytes, DATA, channel, 0, stream)


class FrameBuffer:
    """Cuts the bytes that arrive into frames.

    It holds as much memory as the frame that arrives needs: a set has hundreds of links that are mostly quiet.
    """

    __slots__ = ("_data", "_end", "_start", "_view")

    def __init__(self) -> None:
        self._start = self._end = 0
        self._data = bytearray(_SMALL_BYTES)
        self._view = memoryview(self._data)

    def space(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        used = self._end - self._start
        if not used:
            self._start = self._end = 0
        elif len(self._data) - self._end < _ROOM_BYTES and self._start:
            self._view[:used] = self._view[self._start : self._end]
            self._start, self._end = 0, used
        if used >= HEAD.size:
            wanted_bytes = HEAD.size + HEAD.unpack_from(self._data, self._start)[0]
            if wanted_bytes > len(self._data):
                self._resize(_LARGE_BYTES)
        return self._view[self._end :]

    def filled(self, count: int) -> Iterator[Frame]:
        """`count` bytes arrived in `space()`: yield the frames that are whole now. Raises `LinkError`."""
        self._end += count
        while self._end - self._start >= HEAD.size:
            size, kind, channel, reserved, stream = HEAD.unpack_from(self._data, self._start)
            if size > BODY_BYTES:
                raise LinkError(f"a frame of {size} bytes; the most is {BODY_BYTES}")
            if reserved:
                raise LinkError("a frame whose reserved bytes are not 0")
            begin = self._start + HEAD.size
            if self._end < begin + size:
                return
            self._start = begin + size
            yield kind, channel, stream, self._view[begin : self._start]

    def shrink(self) -> None:
        """Give back the memory for large frames, where none is under way."""
        if self._start == self._end and len(self._data) > _SMALL_BYTES:
            self._start = self._end = 0
            self._resize(_SMALL_BYTES)

    def _resize(self, size_bytes: int) -> None:
        data = bytearray(size_bytes)
        used = self._end - self._start
        if used:
            data[:used] = self._view[self._start : self._end]
        self._start, self._end = 0, used
        self._data = data
        self._view = memoryview(data)
