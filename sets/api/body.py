"""A request's body, read piece by piece and never held whole.

Falcon's own stream takes a client that went away for the end of the body; here half an input must never look like
a whole one. Falcon also waits for the first bytes before it calls a handler; a handler here may refuse before a body
is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from sets.api.errors import BodyCutOff, BodyTooLarge

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
SCOPE_KEY: Final = "general_compute.body"
"""Where a request's ASGI scope holds its `RequestBody`."""
_EMPTY_FIRST: Final[Event] = {"type": "http.request", "body": b"", "more_body": True}


class RequestBody:
    """The body of one request. Read it by `small` or by `chunks`, once."""

    __slots__ = ("_given_first", "_next", "_receive", "size_bytes")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._given_first = False
        # The piece that `begin` has read, and `chunks` has not yielded.
        self._next: Event | None = None
        self.size_bytes = 0

    async def receive(self) -> Event:
        """Return events for Falcon: an empty first one at once, then the others as they come."""
        if not self._given_first:
            self._given_first = True
            return _EMPTY_FIRST
        return await self._receive()

    async def small(self, size_bytes: int) -> bytes:
        """The whole of a body whose Content-Length is `size_bytes`. Raises `BodyCutOff`."""
        data = b""
        while len(data) < size_bytes:
            event = await self._receive()
            chunk: bytes = event.get("body", b"")
            if not chunk and not event.get("more_body", False):
                # The body's end, or the client's.
                raise BodyCutOff
            data = data + chunk if data else chunk
        self.size_bytes = size_bytes
        return data

    async def begin(self) -> None:
        """Wait for the first piece, or the end; `chunks` yields it. Raises `BodyCutOff`."""
        event = await self._receive()
        if event["type"] != "http.request":
            raise BodyCutOff
        self._next = event

    async def chunks(self, max_bytes: int) -> AsyncIterator[bytes]:
        """Piece by piece. Raises `BodyCutOff`, and `BodyTooLarge` above `max_bytes`."""
        while True:
            event, self._next = self._next or await self._receive(), None
            if event["type"] != "http.request":
                raise BodyCutOff
            chunk: bytes = event.get("body", b"")
            if chunk:
                self.size_bytes += len(chunk)
                if self.size_bytes > max_bytes:
                    raise BodyTooLarge(max_bytes)
                yield chunk
            if not event.get("more_body", False):
                return
