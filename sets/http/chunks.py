"""Decodes a chunked body (RFC 9112, 7.1). Checks and drops extensions and trailers. Pure."""

from __future__ import annotations

import enum
import re
from typing import Final

from sets.http.refusal import Refusal

LINE_BYTES: Final = 4_096
"""Longest line with a chunk's size and extensions, in bytes."""
TRAILER_BYTES: Final = 16_384
"""Size of all trailers of a body together, in bytes."""

FRAMING_BYTES: Final = 131_072
"""Bytes of chunks' sizes and extensions that a body may have beyond twice its data. Each chunk costs the set the same
time whatever its size, so a body of 25,000 chunks of one byte is fine, and a gigabyte of them is not."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION: Final = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:%b)*\r\n" % _EXTENSION)
_SIZE_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{0,15}(?:\r|[ \t]*|[ \t]*;[\t\x20-\x7e\x80-\xff]*\r?)")
_TRAILER_LINE: Final = re.compile(rb"(?:%b:[\t\x20-\x7e\x80-\xff]*)?\r\n" % _TOKEN)


class _Next(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    END = enum.auto()
    TRAILER = enum.auto()


class ChunkedBody:
    """The state of one chunked body; `done` after its last chunk and trailers."""

    __slots__ = ("_framing_left", "_left", "_line", "_next", "_trailer_bytes", "done")

    def __init__(self) -> None:
        self._next = _Next.SIZE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0
        # How many more bytes of framing may come.
        self._framing_left = FRAMING_BYTES
        self.done = False

    def read(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        """Return the pieces of the body in `data` from `at` on, and the offset at which the body's part ends. Raises
        `Refusal`."""
        pieces: list[bytes] = []
        end = len(data)
        while at < end and not self.done:
            if self._next is _Next.DATA:
                stop = min(end, at + self._left)
                pieces.append(data[at:stop])
                self._left -= stop - at
                at = stop
                if not self._left:
                    self._next = _Next.END
                continue
            stop = data.find(b"\n", at) + 1
            line = self._line + data[at : stop or end]
            if self._next is _Next.TRAILER:
                self._trailer_bytes += (stop or end) - at
            at = stop or end
            self._line = b"" if stop else line
            self._take_line(line, whole=bool(stop))
        return pieces, at

    def _take_line(self, line: bytes, *, whole: bool) -> None:
        if self._next is _Next.SIZE:
            if len(line) > LINE_BYTES:
                raise Refusal(400, f"a chunk's size with its extensions is longer than {LINE_BYTES} bytes")
            match = _SIZE_LINE.fullmatch(line) if whole else _SIZE_BEGUN.fullmatch(line)
            if match is None:
                raise Refusal(400, "a chunk's size must be hexadecimal digits, extensions and CR LF")
            if whole:
                self._left = int(match[1], 16)
                # With the line's end after the data.
                self._framing_left += 2 * self._left - len(line) - 2
                if self._framing_left < 0:
                    raise Refusal(400, "the body's chunks are too small: send more than two bytes in each")
                self._next = _Next.DATA if self._left else _Next.TRAILER
        elif self._next is _Next.END:
            if not b"\r\n".startswith(line):
                raise Refusal(400, "a chunk's data is not as long as its size says")
            if whole:
                self._next = _Next.SIZE
        else:
            if self._trailer_bytes > TRAILER_BYTES:
                raise Refusal(431, f"the trailers are too large ({TRAILER_BYTES} bytes at most)")
            if whole and _TRAILER_LINE.fullmatch(line) is None:
                raise Refusal(400, "a trailer must be a name, a colon and a value, and end with CR LF")
            self.done = line == b"\r\n"
