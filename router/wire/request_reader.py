"""Splits a client's bytes into requests: heads and bodies, one after the other, in whatever pieces they come. Pure.

Bytes that a client sends ahead of its turn wait in `unread`.
"""

from __future__ import annotations

from typing import Final

from router.wire.framing import ChunkedBody, FramingError, LengthBody
from router.wire.limits import Limits
from router.wire.request_head import RequestHead, parse_request, refuse_part
from router.wire.stream import Piece

REMEMBERED_HEAD_BYTES: Final = 1024
"""Maximum size, in bytes, of a head that is kept once it came twice: clients repeat themselves, and the same bytes need
not be read again."""
SKIPPED_BODY_BYTES: Final = 1024 * 1024
"""Longest rest of a body, in bytes, that is read and dropped after an early answer, so that the connection lives on."""


class RequestReader:
    """The requests of one connection. `body` is the rest of the last request's body."""

    __slots__ = ("_last_head", "_last_mark", "_last_raw", "_limits", "_searched", "body", "unread")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._searched = 0
        self._last_mark = 0
        self._last_raw = b""
        self._last_head: RequestHead | None = None
        self.unread = b""
        self.body: LengthBody | ChunkedBody | None = None

    def take(self, data: bytes) -> None:
        """Add what came."""
        self.unread = self.unread + data if self.unread else data

    def drop(self) -> None:
        """Drop the unread bytes: they cannot be understood."""
        self.unread = b""
        self._searched = 0

    def forget(self) -> None:
        """Keep nothing between two requests: thousands of silent connections would hold megabytes."""
        if self._last_raw:
            self._last_raw = b""
            self._last_head = None

    def head(self) -> RequestHead | None:
        """Return the next request's head; None if it is incomplete. Raises `Refusal`."""
        data = self.unread
        last = self._last_raw
        if last and data.startswith(last) and self._last_head is not None:
            self.unread = data[len(last) :]
            self._searched = 0
            return self._last_head.again()
        if data[:1] in (b"\r", b"\n"):
            data = data.lstrip(b"\r\n")
            self._searched = 0
        stop = data.find(b"\r\n\r\n", self._searched) + 4
        if stop == 3:
            self.unread = data
            self._searched = max(0, len(data) - 3)
            refusal = refuse_part(data, self._limits)
            if refusal is not None:
                raise refusal
            return None
        self._searched = 0
        rest = b""
        if stop < len(data):
            rest = data[stop:]
            data = data[:stop]
        self.unread = rest
        head = parse_request(data, self._limits)
        if len(data) <= REMEMBERED_HEAD_BYTES:
            # A client that asks only once is not worth the memory.
            mark = hash(data)
            if mark == self._last_mark:
                self._last_raw = data
                self._last_head = head
            self._last_mark = mark
        return head

    def begin_body(self, head: RequestHead) -> list[Piece]:
        """Set up a body's framing; returns its first pieces and keeps what follows it. Raises
        `FramingError`."""
        rest = self.unread
        if len(rest) == head.content_length:
            # The usual small request, which came all at once.
            self.unread = b""
            return [rest]
        body = ChunkedBody() if head.chunked else LengthBody(head.content_length or 0)
        if not rest:
            self.body = body
            return []
        pieces, pos = body.feed(rest, memoryview(rest), 0, len(rest))
        self.unread = rest[pos:]
        if not body.done:
            self.body = body
        return pieces

    def read_body(self, buf: bytes | bytearray, view: memoryview, end: int) -> list[Piece]:
        """Pieces of the body in `buf[:end]`; `body` is None once it is complete. Raises `FramingError`."""
        body = self.body
        assert body is not None
        pieces, pos = body.feed(buf, view, 0, end)
        if body.done:
            self.body = None
            self.unread = bytes(view[pos:end])
        return pieces

    def skip_body(self, data: bytes) -> bool:
        """Drop a part of a body that nobody waits for. False: its framing is broken; nothing after it can be read."""
        try:
            self.read_body(data, memoryview(data), len(data))
        except FramingError:
            self.body = None
            return False
        return True

    def may_skip_body(self) -> bool:
        """Return True if the rest of the body is known to be short."""
        return isinstance(self.body, LengthBody) and self.body.bytes_left <= SKIPPED_BODY_BYTES
