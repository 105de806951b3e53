"""A request and its answer: the `receive` and `send` of an ASGI application."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, Protocol

from sets.http.head import Scope

Event = dict[str, Any]

BODY_BYTES: Final = 262_144
"""Body bytes that wait for the application before reading from the client is paused."""
PIECE_BYTES: Final = 64
"""Bytes counted for each waiting piece, in addition to its own."""
SMALL_BYTES: Final = 4_096
"""A piece smaller than this is joined with the pieces that wait behind it."""
JOIN_BYTES: Final = 65_536
"""A piece of an answer smaller than this is joined with what precedes it: one write is worth more than one copy."""
_GONE: Final[Event] = {"type": "http.disconnect"}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Line(Protocol):
    """The parts of a connection that an exchange uses."""

    loop: asyncio.AbstractEventLoop
    closed: bool
    body_stall_s: float
    """Longest wait for more of a body, in seconds."""
    set_header: bytes
    """The header line that is added to every answer."""
    write_paused: asyncio.Future[None] | None
    """Wait until the client has read enough of its answer."""

    @property
    def draining(self) -> bool:
        """True if no further request will be served."""

    def write(self, data: bytes) -> None: ...

    def resume(self) -> None:
        """Called when the application has taken some of the body."""


class Exchange:
    """`receive` and `send` are the application's; `feed`, `complete`, `lose` the connection's."""

    __slots__ = (
        "_buffered",
        "_chunked",
        "_chunks",
        "_connection",
        "_gone",
        "_left",
        "_omits_body",
        "_start",
        "_waiter",
        "_waits",
        "answer_begun",
        "answer_whole",
        "body_whole",
        "keep_alive",
        "scope",
    )

    def __init__(self, connection: Line, scope: Scope, *, keep_alive: bool, waits: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        # True when the whole request body has come.
        self.body_whole = False
        self.answer_begun = False
        self.answer_whole = False
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        # True while the client waits for a 100.
        self._waits = waits
        self._waiter: asyncio.Future[None] | None = None
        self._gone = False
        self._start: Event | None = None
        self._chunked = False
        self._omits_body = False
        # Bytes that the answer's Content-Length still promises.
        self._left = 0

    # -- the request's body

    @property
    def full(self) -> bool:
        """True if reading should pause, as enough of the body waits."""
        return self._buffered > BODY_BYTES

    def feed(self, chunk: bytes) -> None:
        self._waits = False
        self._chunks.append(chunk)
        self._buffered += len(chunk) + PIECE_BYTES
        self._wake()

    def complete(self) -> None:
        self.body_whole = True
        self._wake()

    def lose(self) -> None:
        """End the request's body: the client is gone, or its body stalled."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self) -> Event:
        """Return the body's next piece, its end, or a disconnect; a stalled body counts as a disconnect."""
        while not self._chunks and not self.body_whole and not self._gone:
            if self._waits:
                self._waits = False
                # In the middle of an answer it would become a part of that.
                if not self.answer_begun:
                    self._connection.write(_CONTINUE)
            await self._wait(self._connection.body_stall_s)
        if self._gone:
            return _GONE
        if self._chunks:
            chunk = self._chunks.popleft()
            if self._chunks and len(chunk) < SMALL_BYTES:
                chunk = b"".join((chunk, *self._chunks))
                self._chunks.clear()
                self._buffered = 0
            else:
                self._buffered -= len(chunk) + PIECE_BYTES
            self._connection.resume()
            return {
                "type": "http.request",
                "body": chunk,
                "more_body": bool(self._chunks) or not self.body_whole,
            }
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _wait(self, timeout_s: float) -> None:
        loop = self._connection.loop
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self.lose)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    # -- the answer

    async def send(self, event: Event) -> None:
        """Send a part of the answer; drop it if the client has gone."""
        connection = self._connection
        if connection.closed:
            return
        if event["type"] == "http.response.start":
            if self._start is not None:
                raise RuntimeError("the answer has begun already")
            self._start = event
            return
        body: bytes = event.get("body", b"")
        more: bool = event.get("more_body", False)
        if self._start is None or self.answer_whole:
            raise RuntimeError("a piece of a body outside an answer")
        head = b""
        if not self.answer_begun:
            head = self._head(self._start)
            self.answer_begun = True
        if self._omits_body:
            body = b""
        elif self._chunked:
            tail = (b"\r\n" if body else b"") + (b"" if more else b"0\r\n\r\n")
            if body:
                head += b"%x\r\n" % len(body)
            if len(body) < JOIN_BYTES:
                head, body = head + body + tail, b""
            else:
                connection.write(head)
                connection.write(body)
                head, body = tail, b""
        elif self._left >= 0:
            if len(body) > self._left:
                raise RuntimeError("the answer is longer than its Content-Length")
            self._left -= len(body)
        if len(body) < JOIN_BYTES:
            connection.write(head + body)
        else:
            connection.write(head)
            connection.write(body)
        if not more:
            # Closing the connection shows the client that the answer is shorter than promised.
            self.answer_whole = self._omits_body or self._left <= 0
            return
        if connection.write_paused is not None:
            await connection.write_paused

    def _head(self, start: Event) -> bytes:
        status: int = start["status"]
        parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status]
        length: bytes | None = None
        for name, value in start["headers"]:
            parts += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                length = value
        fields = b"".join(parts)
        if fields.count(b"\n") != len(parts) // 4 + 1 or fields.count(b"\r") != len(parts) // 4 + 1:
            raise RuntimeError("a header of the answer holds a line break")
        no_body = status in (204, 304) or status < 200
        self._omits_body = no_body or self.scope["method"] == "HEAD"
        if length is not None:
            self._left = int(length)
        elif not no_body and self.scope["http_version"] == "1.1":
            parts.append(b"transfer-encoding: chunked\r\n")
            self._chunked = True
        elif not no_body:
            # HTTP/1.0: the answer ends when the connection closes.
            self._left = -1
            self.keep_alive = False
        # A client that is answered before its body has arrived must not send another request.
        if not self.body_whole or self._connection.draining:
            self.keep_alive = False
        parts.append(self._connection.set_header)
        parts.append(_date())
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif self.scope["http_version"] == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)


_date_line = b""
_date_second = 0


def _date() -> bytes:
    """Return the Date header, made once a second."""
    global _date_line, _date_second
    now = int(time.time())
    if now != _date_second:
        _date_second = now
        _date_line = f"date: {formatdate(now, usegmt=True)}\r\n".encode()
    return _date_line
