"""Splits a client's bytes into requests, heads and bodies, in whatever pieces they arrive. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sets.http.chunks import ChunkedBody
from sets.http.head import (
    HEAD_BYTES,
    REQUEST_LINE_BYTES,
    RequestHead,
    bare_line_feed,
    head_too_large,
    line_too_long,
)

_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_HEAD_END: Final = b"\r\n\r\n"


class RequestReader:
    """Reads the requests of one connection."""

    __slots__ = ("_chunks", "_left", "_line_whole", "_partial")

    def __init__(self) -> None:
        # The part of a head that has come.
        self._partial = bytearray()
        self._line_whole = False
        # The rest of a body with a Content-Length, in bytes; the state of a chunked body.
        self._left = 0
        self._chunks: ChunkedBody | None = None

    def read(self, data: bytes) -> Iterator[RequestHead | bytes | None]:
        """Yield the contents of `data` in order: a request's head, pieces of its body, and None at its end. Raises
        `Refusal` after everything valid; nothing after that can be parsed.

        Consume the whole result before the next call.
        """
        at = 0
        size = len(data)
        while at < size:
            if self._left:
                stop = at + self._left
                # Pieces of a large body are passed on without a copy.
                piece = data[at:stop] if at or stop < size else data
                self._left -= len(piece)
                at += len(piece)
                yield piece
                if not self._left:
                    yield None
            elif self._chunks is not None:
                pieces, at = self._chunks.read(data, at)
                yield from pieces
                if self._chunks.done:
                    self._chunks = None
                    yield None
            else:
                raw, at = self._head(data, at)
                if raw is None:
                    return
                head = RequestHead(raw)
                self._left = head.content_length
                if head.chunked:
                    self._chunks = ChunkedBody()
                yield head
                if not head.content_length and not head.chunked:
                    yield None

    def _head(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """Return the next head, or None if it is incomplete, and the offset of the bytes after it."""
        partial = self._partial
        size = len(data)
        if not partial:
            # Ignore empty lines before a request.
            while at < size and data[at] in b"\r\n":
                at += 1
            stop = data.find(_HEAD_END, at) + len(_HEAD_END)
            if stop >= len(_HEAD_END):
                return data[at:stop], stop
        known = len(partial)
        partial += data[at:]
        stop = partial.find(_HEAD_END, max(0, known - 3)) + len(_HEAD_END)
        if stop < len(_HEAD_END):
            self._check_part(known)
            return None, size
        raw = bytes(partial[:stop])
        at = size - (len(partial) - stop)
        partial.clear()
        self._line_whole = False
        return raw, at

    def _check_part(self, known: int) -> None:
        """Raise `Refusal` if an incomplete head can no longer become a valid request."""
        partial = self._partial
        if not self._line_whole:
            self._line_whole = partial.find(b"\r\n", max(0, known - 1)) >= 0
            if not self._line_whole and len(partial) > REQUEST_LINE_BYTES:
                raise line_too_long()
        if len(partial) > HEAD_BYTES:
            raise head_too_large()
        # The expression also looks at the character before `known`.
        if _BARE_LF.search(partial, known):
            raise bare_line_feed()
