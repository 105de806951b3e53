"""TLS for one protocol, over a plain connection of the event loop.

uvloop has such a layer, which asks OpenSSL and its buffers a dozen questions for each message. On a busy machine, where
every function is cold, that was a good part of what a small task costs by a link. This layer asks as little as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Final, cast

READ_BYTES: Final = 1 << 18
"""Most bytes that are read from a connection at a time."""
RECORD_BYTES: Final = 1 << 14
"""Most bytes in one record of TLS: pieces that fit into one together are sent as one."""

# One for all connections: what was read is handed to OpenSSL before anything else is read.
_arrived: Final = memoryview(bytearray(READ_BYTES))


class TlsConnection(asyncio.BufferedProtocol):
    """The protocol of the loop's transport, and itself the transport of the protocol `above` (of a `Wire`).

    `above` hears of the connection once the handshake is done. A server has no `server_hostname`; a client checks it
    against the other end's certificate.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        above: asyncio.BufferedProtocol,
        context: ssl.SSLContext,
        server_hostname: str | None = None,
    ) -> None:
        self._above = above
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self._handshake: asyncio.Future[None] = loop.create_future()
        self._open = False
        self._closing = False
        self._lost = False
        self._error: ssl.SSLError | None = None

    async def opened(self) -> None:
        """Wait for the handshake. Raises `OSError`; `ssl.SSLError` is one."""
        try:
            await self._handshake
        except asyncio.CancelledError:
            self.abort()
            raise

    # -- from the loop's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._shake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _arrived

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            # Nobody reads any more, and the other end is about to close.
            return
        self._incoming.write(_arrived[:nbytes])
        if not self._open:
            self._shake()
            if not self._open:
                return
        try:
            self._read()
        except ssl.SSLError as error:
            self._fail(error)

    def eof_received(self) -> None:
        if self._open and not self._closing:
            self._above.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self._lost = True
        if self._open:
            self._above.connection_lost(self._error or exc)
        elif not self._handshake.done():
            self._handshake.set_exception(exc or ConnectionResetError("the other end closed the connection"))

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    # -- from the protocol above

    def set_write_buffer_limits(self, high: int) -> None:
        self._transport.set_write_buffer_limits(high=high)

    def get_extra_info(self, name: str) -> Any:
        """Return the other end's certificate, as `ssl.SSLSocket.getpeercert` does."""
        assert name == "peercert"
        return self._tls.getpeercert()

    def writelines(self, pieces: list[bytes | memoryview]) -> None:
        """Send all pieces; on a connection that is being closed, none. Raises `OSError`, `RuntimeError`."""
        if self._closing:
            return
        if len(pieces) > 1 and sum(map(len, pieces)) <= RECORD_BYTES:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            sent = self._tls.write(piece)
            while sent < len(piece):
                sent += self._tls.write(memoryview(piece)[sent:])
        self._flush()

    def close(self) -> None:
        """Close the connection when what was written has left, and the other end has closed it, too."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(OSError, RuntimeError):
            # Says goodbye. The other end's goodbye, for which it asks, is not read.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
            # The kernel resets a connection that is closed with bytes unread, and the last frames could be lost.
            self._transport.write_eof()

    def abort(self) -> None:
        """Close the connection at once, if it is not closed yet."""
        self._closing = True
        if not self._lost:
            self._transport.abort()

    # -- OpenSSL

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            if not self._handshake.done():
                self._handshake.set_exception(error)
            self._fail(error)
        else:
            self._flush()
            self._open = True
            self._above.connection_made(cast(asyncio.BaseTransport, self))
            if not self._handshake.done():
                self._handshake.set_result(None)

    def _read(self) -> None:
        """Hand on what can be decrypted. Raises `ssl.SSLError`."""
        incoming, tls = self._incoming, self._tls
        # Decrypted bytes for which the buffer had no room.
        left = False
        while not self._closing:
            buffer = cast(memoryview, self._above.get_buffer(-1))
            filled, room = 0, len(buffer)
            ended = False
            while room and (left or incoming.pending):
                try:
                    # Into a buffer, it returns how many bytes.
                    count = cast(int, tls.read(room, buffer[filled:]))
                except ssl.SSLWantReadError:
                    # A record whose rest is still to come.
                    break
                if not count:
                    ended = True
                    break
                filled += count
                room -= count
                left = not room and tls.pending() > 0
            if filled:
                self._above.buffer_updated(filled)
            if ended and not self._closing:
                self._above.eof_received()
            if room or not (left or incoming.pending):
                break
        if self._outgoing.pending:
            # OpenSSL answers by itself, for example to a change of keys.
            self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._transport.write(data)

    def _fail(self, error: ssl.SSLError) -> None:
        """End a connection whose other end broke TLS, or refused this end; it is told why."""
        self._closing = True
        self._error = error
        with contextlib.suppress(OSError, RuntimeError):
            self._flush()
        self._transport.close()


async def connect(
    loop: asyncio.AbstractEventLoop,
    above: asyncio.BufferedProtocol,
    host: str,
    port: int,
    context: ssl.SSLContext,
    server_hostname: str,
) -> None:
    """Open a connection for `above` to a server with that name in its certificate. Raises `OSError`."""
    _, connection = await loop.create_connection(
        lambda: TlsConnection(loop, above, context, server_hostname), host, port
    )
    await connection.opened()


async def accept(
    loop: asyncio.AbstractEventLoop,
    above: asyncio.BufferedProtocol,
    connection: socket.socket,
    context: ssl.SSLContext,
) -> None:
    """Open a connection that a client made, for `above`. Raises `OSError`."""
    _, accepted = await loop.connect_accepted_socket(lambda: TlsConnection(loop, above, context), connection)
    await accepted.opened()
