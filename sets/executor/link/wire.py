"""One end of a link's connection: frames in, frames out, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from sets.executor.link import frames, messages
from sets.executor.link.frames import FrameBuffer, LinkError

WRITE_BYTES: Final = 1 << 19
"""Bytes that may wait for the network before senders of bodies pause."""
CLOSE_S: Final = 2.0
"""Longest time, in seconds, for the last frames to leave when the link ends."""

Received = Callable[[int, int, int, memoryview], None]
"""Called with each frame: kind, channel, stream, body. What it raises of `LinkError` ends the link."""


class Wire(asyncio.BufferedProtocol):
    """Frames over a connection. `received` is called with each frame, `ended` once, with the reason.

    Frames that are sent in one turn of the loop leave in one piece, and answers to frames that came in one piece, too.
    An urgent frame takes along what waits, and leaves at once: the turn may be a long one.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, received: Received, ended: Callable[[str], None]
    ) -> None:
        self.loop = loop
        self.received = received
        self.ended = ended
        # Whether the link has ended: then nothing is sent, and nothing received.
        self.over = False
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes | memoryview] = []
        self._flushing = False
        # While frames that came are handled: what they make this end send leaves right after them.
        self._corked = False
        self._full = False
        self._drained: list[asyncio.Future[None]] = []

    # -- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.space()

    def buffer_updated(self, nbytes: int) -> None:
        self._corked = True
        try:
            for kind, channel, stream, body in self._frames.filled(nbytes):
                if self.over:
                    return
                if kind == frames.FAULT:
                    reason = messages.decode(body, messages.Reason).reason
                    raise LinkError(f"the other end refused to go on: {reason}")
                self.received(kind, channel, stream, body)
        except LinkError as error:
            self.fail(str(error))
        finally:
            self._corked = False
            self._flush()

    def eof_received(self) -> None:
        self._end("the other end closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc else "the other end closed the connection")

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    # -- to the other end

    def peer_certificate(self) -> dict[str, Any]:
        """The other end's certificate, as `ssl.SSLSocket.getpeercert` gives it; empty if it sent none."""
        assert self._transport is not None
        return self._transport.get_extra_info("peercert") or {}

    def send(
        self, kind: int, message: msgspec.Struct | None = None, *, stream: int = 0, channel: int = 0
    ) -> None:
        """Send a frame with this message as its body."""
        body = b"" if message is None else messages.encode(message)
        self.send_raw(kind, body, stream=stream, channel=channel)

    def send_urgent(self, kind: int, message: msgspec.Struct, stream: int) -> None:
        """Send a frame for which somebody waits: at once, or right after the frames that are being handled."""
        if not self.over:
            self._out.append(frames.frame(kind, messages.encode(message), stream=stream))
            if not self._corked:
                self._flush()

    def send_raw(self, kind: int, body: bytes, *, stream: int = 0, channel: int = 0) -> None:
        """Send a frame with this body."""
        if not self.over:
            self._out.append(frames.frame(kind, body, stream=stream, channel=channel))
            self._flush_soon()

    def send_data(self, data: memoryview, stream: int, channel: int) -> None:
        """Send a piece of a body, which must not change afterwards; call `drain` before the next."""
        if not self.over:
            self._out += (frames.data_head(len(data), stream, channel), data)
            self._flush_soon()

    async def drain(self) -> None:
        """Wait while too much waits for the network. Returns at once when the link is over."""
        while self._full and not self.over:
            future = self.loop.create_future()
            self._drained.append(future)
            await future

    def shrink(self) -> None:
        """Give back memory that large frames needed."""
        self._frames.shrink()

    # -- the end

    def fail(self, reason: str) -> None:
        """End the link, and tell the other end why."""
        self.send(frames.FAULT, messages.Reason(messages.cut(reason)))
        self.close(reason)

    def close(self, reason: str) -> None:
        """End the link, once what was sent has left."""
        if self.over:
            return
        self._flush()
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        self._out.clear()
        transport = self._transport
        if transport is not None:
            transport.close()
            self.loop.call_later(CLOSE_S, transport.abort)
        self._wake()
        self.ended(reason)

    def _wake(self) -> None:
        drained, self._drained = self._drained, []
        for future in drained:
            if not future.done():
                future.set_result(None)

    def _flush_soon(self) -> None:
        if not self._flushing and not self._corked:
            self._flushing = True
            self.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        if not self._out or self._transport is None:
            return
        out, self._out = self._out, []
        # A connection that has just broken reports that by itself.
        with contextlib.suppress(OSError, RuntimeError):
            self._transport.writelines(out)
