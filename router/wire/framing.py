"""Finds where a body ends: by Content-Length, chunks, or the connection's end. Pure: bytes in, what to forward out.

A body is forwarded as slices of the very buffer that it was received into. Chunked bytes whose framing is plain are
passed on unchanged; chunk extensions are cut out, trailers are kept apart, and anything that is not exactly RFC 9112 is
refused.
"""

from __future__ import annotations

import re
from typing import Final

from router.wire.stream import Piece

MAX_CHUNK_LINE_BYTES: Final = 4096
MAX_TRAILER_BYTES: Final = 16 * 1024
MANY_CHUNKS: Final = 512

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION: Final = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:%b)*\r\n" % _EXTENSION)
_TRAILER_LINE: Final = re.compile(rb"(%b):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n" % _TOKEN)

FORBIDDEN_TRAILERS: Final = frozenset(
    b"content-length transfer-encoding host connection keep-alive te trailer upgrade content-encoding content-type "
    b"content-range authorization proxy-authorization proxy-authenticate set-cookie x-set x-router x-task-id "
    b"x-request-id".split()
)


class FramingError(Exception):
    """The body's framing is broken; the message says how."""


class LengthBody:
    """A body of a known length."""

    __slots__ = ("bytes_left", "done", "slow")

    chunked = False

    def __init__(self, length: int) -> None:
        self.bytes_left = length
        self.done = length == 0
        self.slow = False

    def feed(self, buf: bytes | bytearray, view: memoryview, start: int, end: int) -> tuple[list[Piece], int]:
        """Pieces of the body in `buf[start:end]`, and where the body's part of it ends."""
        stop = min(end, start + self.bytes_left)
        self.bytes_left -= stop - start
        self.done = self.bytes_left == 0
        return ([view[start:stop]] if stop > start else []), stop

    def end_of_connection(self) -> bool:
        """Return True if the connection's end is a proper end of the body."""
        return self.done


class UntilCloseBody:
    """An answer's body that the connection's end ends."""

    __slots__ = ("done", "slow")

    chunked = False

    def __init__(self) -> None:
        self.done = False
        self.slow = False

    def feed(self, buf: bytes | bytearray, view: memoryview, start: int, end: int) -> tuple[list[Piece], int]:
        return ([view[start:end]] if end > start else []), end

    def end_of_connection(self) -> bool:
        self.done = True
        return True


_SIZE, _DATA, _DATA_CR, _DATA_LF, _TRAILER, _DONE = range(6)


class ChunkedBody:
    """A chunked body. `framed`: pass it on chunked again; else only its data. `slow`: its chunks are so small that less
    should be read at once, so that one client cannot keep the process busy."""

    __slots__ = (
        "_framed",
        "_left",
        "_line",
        "_state",
        "_trailer_bytes",
        "done",
        "keep_trailers",
        "slow",
        "trailers",
    )

    chunked = True

    def __init__(self, *, framed: bool = True, keep_trailers: bool = False) -> None:
        self._framed = framed
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0
        self.keep_trailers = keep_trailers
        self.trailers: list[bytes] = []
        self.done = False
        self.slow = False

    def end_of_connection(self) -> bool:
        return self.done

    def feed(self, buf: bytes | bytearray, view: memoryview, start: int, end: int) -> tuple[list[Piece], int]:
        """Pieces to forward from `buf[start:end]`, and where the body's part of it ends.

        `FramingError`: the bytes are not a chunked body; nothing of this call may be forwarded.
        """
        out: list[Piece] = []
        framed = self._framed
        pos = run = start
        chunks = 0
        state = self._state
        while pos < end and state != _DONE:
            if state == _DATA:
                took = min(self._left, end - pos)
                if not framed:
                    out.append(view[pos : pos + took])
                pos += took
                self._left -= took
                if self._left:
                    break
                state = _DATA_CR
            elif state == _DATA_CR:
                if buf[pos] != 13:
                    raise FramingError("a chunk's data is longer than its size says")
                pos += 1
                state = _DATA_LF
            elif state == _DATA_LF:
                if buf[pos] != 10:
                    raise FramingError("a chunk's data must end with CR LF")
                pos += 1
                state = _SIZE
            elif state == _SIZE:
                stop = buf.find(b"\n", pos, end) + 1
                if framed and not self._line and run < pos and (not stop or buf[pos] == 48):
                    # The line is incomplete, or may be the last chunk's: the bytes before it are passed on unchanged.
                    out.append(view[run:pos])
                    run = pos
                line = self._line + buf[pos : stop or end]
                if len(line) > MAX_CHUNK_LINE_BYTES:
                    raise FramingError("a chunk's size line is too long")
                if not stop:
                    if not _may_be_chunk_line(line):
                        raise FramingError("a chunk's size must be hexadecimal")
                    self._line = bytes(line)
                    pos = run = end
                    break
                match = _CHUNK_LINE.fullmatch(line)
                if match is None:
                    raise FramingError("a chunk's size line must be hexadecimal digits, extensions and CR LF")
                size = int(match[1], 16)
                chunks += 1
                if size == 0:
                    if framed and run < pos:
                        out.append(view[run:pos])
                    state = _TRAILER
                    run = stop
                else:
                    plain = not self._line and match.end(1) + 2 == len(line)
                    if framed and not plain:
                        if run < pos:
                            out.append(view[run:pos])
                        out.append(match[1] + b"\r\n")
                        run = stop
                    self._left = size
                    state = _DATA
                self._line = b""
                pos = stop
            else:
                stop = buf.find(b"\n", pos, end) + 1
                line = self._line + buf[pos : stop or end]
                self._trailer_bytes += (stop or end) - pos
                if self._trailer_bytes > MAX_TRAILER_BYTES:
                    raise FramingError("the trailers are too long")
                if not stop:
                    self._line = bytes(line)
                    pos = run = end
                    break
                self._line = b""
                pos = run = stop
                if line == b"\r\n":
                    state = _DONE
                    if framed:
                        out.append(b"0\r\n" + b"".join(self.trailers) + b"\r\n")
                    break
                match = _TRAILER_LINE.fullmatch(line)
                if match is None:
                    raise FramingError("a trailer must be a name, a colon, a value and CR LF")
                if self.keep_trailers and match[1].lower() not in FORBIDDEN_TRAILERS:
                    self.trailers.append(match[1] + b": " + match[2] + b"\r\n")
        if framed and run < pos:
            out.append(view[run:pos])
        self._state = state
        self.done = state == _DONE
        self.slow = chunks > MANY_CHUNKS
        return out, pos


def _may_be_chunk_line(line: bytes | bytearray) -> bool:
    return (
        re.fullmatch(rb"[0-9A-Fa-f]{0,15}(?:\r|[ \t]*|[ \t]*;[\t\x20-\x7e\x80-\xff]*\r?)", line) is not None
    )


Body = LengthBody | ChunkedBody | UntilCloseBody
