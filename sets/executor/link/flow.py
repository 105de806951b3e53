"""The bytes of one channel of a stream, with back-pressure: a sender has credit, and the receiver's reader gives it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from sets.executor.link import frames, messages
from sets.executor.link.frames import COUNT, LinkError
from sets.executor.link.wire import Wire

WINDOW_BYTES: Final = 1 << 19
"""Credit of a channel at its beginning, and the most that it may have: what the receiver holds when nobody reads."""
PIECE_BYTES: Final = frames.BODY_BYTES
"""Most bytes of one DATA frame: a small task's frames wait behind one piece of each body at most."""

MERGED_BYTES: Final = 4096
"""Unread pieces below this size take later ones in: many tiny frames hold no more memory than a few large ones."""


class Outbound:
    """Sends bytes, as far as the other end has room for them. One coroutine uses it at a time."""

    __slots__ = ("_channel", "_credit", "_ended", "_refused", "_stream", "_waiter", "_wire")

    def __init__(self, wire: Wire, stream: int, channel: int) -> None:
        self._wire = wire
        self._stream = stream
        self._channel = channel
        self._credit = WINDOW_BYTES
        self._ended = False
        self._refused = False
        self._waiter: asyncio.Future[None] | None = None

    async def send(self, data: bytes) -> None:
        """Send all of `data`. Raises `BrokenPipeError` once nobody reads it, and after `end`."""
        view = memoryview(data)
        while view:
            if self._refused or self._ended or self._wire.over:
                raise BrokenPipeError
            if not self._credit:
                self._waiter = self._wire.loop.create_future()
                await self._waiter
                continue
            piece = view[: min(self._credit, PIECE_BYTES)]
            self._credit -= len(piece)
            self._wire.send_data(piece, self._stream, self._channel)
            view = view[len(piece) :]
            await self._wire.drain()

    def end(self, reason: str = "") -> None:
        """No more bytes follow; with a reason, they are not all. Ending twice is fine."""
        if not self._ended:
            message = messages.Reason(messages.cut(reason))
            self._wire.send(frames.END, message, stream=self._stream, channel=self._channel)
        self._ended = True
        self._wake()

    def credit(self, count: int) -> None:
        """The other end has read `count` bytes. Raises `LinkError` for more than it was sent."""
        if not 0 < count <= WINDOW_BYTES - self._credit:
            raise LinkError("a CREDIT for bytes that were not sent")
        self._credit += count
        self._wake()

    def refuse(self) -> None:
        """Nobody reads the bytes any more: the other end closed the channel, or the link is over."""
        self._refused = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Inbound:
    """Holds the bytes that arrived until they are read. One coroutine reads at a time."""

    __slots__ = (
        "_channel",
        "_closed",
        "_ended",
        "_held",
        "_pieces",
        "_read",
        "_stream",
        "_waiter",
        "_wire",
        "reason",
    )

    def __init__(self, wire: Wire, stream: int, channel: int) -> None:
        self._wire = wire
        self._stream = stream
        self._channel = channel
        self._pieces: deque[bytes] = deque()
        # Bytes that are here unread, and those that were read and not credited yet.
        self._held = self._read = 0
        self._ended = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        # Why the bytes ended early.
        self.reason = ""

    @property
    def over(self) -> bool:
        """True if nothing more arrives that anybody wants."""
        return self._ended or self._closed

    def feed(self, body: memoryview) -> None:
        """Bytes arrived. Raises `LinkError` for more than there was credit for, for none, and after the end."""
        if self._ended:
            raise LinkError("DATA after the END of its channel")
        self._held += len(body)
        if not body or self._held + self._read > WINDOW_BYTES:
            raise LinkError("DATA that is empty, or more than there was credit for")
        if self._closed:
            return
        if self._pieces and len(self._pieces[-1]) < MERGED_BYTES:
            self._pieces[-1] += bytes(body)
        else:
            self._pieces.append(bytes(body))
        self._wake()

    def end(self, reason: str = "") -> None:
        """Nothing follows; with a reason, the bytes are not all."""
        if not self._ended:
            self._ended = True
            self.reason = reason
        self._wake()

    async def read(self) -> bytes:
        """Some bytes; empty at the end, and after `close`."""
        while not self._pieces:
            if self._ended or self._closed:
                return b""
            self._waiter = self._wire.loop.create_future()
            await self._waiter
        piece = self._pieces.popleft()
        self._held -= len(piece)
        self._read += len(piece)
        if self._read >= WINDOW_BYTES // 2 and not self._ended:
            self._wire.send_raw(
                frames.CREDIT, COUNT.pack(self._read), stream=self._stream, channel=self._channel
            )
            self._read = 0
        return piece

    def close(self) -> None:
        """Stop reading; the sender is told. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._pieces.clear()
        if not self._ended:
            self._wire.send_raw(frames.CLOSE, b"", stream=self._stream, channel=self._channel)
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
