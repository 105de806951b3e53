"""A connection that is being made: at a host's addresses one after another, within a time for all of them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from router.wire.addresses import Address, Addresses
from router.wire.silence import probe

OWN_ERRORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors because this process lacks something; they say nothing about the peer."""


class Dial:
    """Connects. One of the callbacks follows, unless it is cancelled before; never from inside the constructor.
    `on_connected` gets, and then owns, a socket that does not block."""

    __slots__ = (
        "_addresses",
        "_closed",
        "_deadline",
        "_error",
        "_left",
        "_lookup",
        "_loop",
        "_on_connected",
        "_on_failed",
        "_sock",
        "_timer",
        "_trying",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        addresses: Addresses,
        within_s: float,
        on_connected: Callable[[socket.socket], None],
        on_failed: Callable[[OSError], None],
        refusal: OSError | None = None,
    ) -> None:
        """`refusal`: what it fails with, without a try."""
        self._loop = loop
        self._addresses = addresses
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._deadline = loop.time() + within_s
        self._closed = False
        self._error = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        self._left: list[Address] = []
        self._trying: Address | None = None
        self._sock: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lookup: asyncio.Task[None] | None = None
        if refusal is not None:
            self._error = refusal
            loop.call_soon(self._fail)
            return
        self._left += addresses.known()
        if self._left:
            self._next()
            return
        self._lookup = addresses.look_up()
        if self._lookup is None:
            self._error = addresses.error or self._error
            loop.call_soon(self._fail)
            return
        self._lookup.add_done_callback(self._resolved)
        self._timer = loop.call_later(within_s, self._late)

    def _resolved(self, lookup: asyncio.Task[None]) -> None:
        self._lookup = None
        if self._closed:
            return
        self._stop_timer()
        self._left = list(self._addresses.known())
        self._error = self._addresses.error or self._error
        self._next()

    def _late(self) -> None:
        self._error = OSError(errno.ETIMEDOUT, "its name was not resolved in time")
        self._fail()

    def _next(self) -> None:
        """Try the next address; fail, a moment later, after the last."""
        while self._left:
            self._trying = self._left.pop(0)
            family, address = self._trying
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as error:
                self._error = error
                continue
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                probe(sock)
                code = sock.connect_ex(address)
                if code not in (0, errno.EINPROGRESS):
                    raise OSError(code, os.strerror(code))
                self._loop.add_writer(sock.fileno(), self._connected)
            except OSError as error:
                sock.close()
                self._error = error
                continue
            self._sock = sock
            # An address that does not answer leaves the others their part of the time.
            part_s = (self._deadline - self._loop.time()) / (len(self._left) + 1)
            self._timer = self._loop.call_later(part_s, self._give_up_address, errno.ETIMEDOUT)
            return
        self._loop.call_soon(self._fail)

    def _connected(self) -> None:
        sock = self._sock
        if sock is None:
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._give_up_address(code)
            return
        self._loop.remove_writer(sock.fileno())
        self._sock = None
        self._closed = True
        self._stop_timer()
        if self._trying is not None:
            self._addresses.answered(self._trying)
        self._on_connected(sock)

    def _give_up_address(self, code: int) -> None:
        self._error = OSError(code, os.strerror(code))
        self._drop_socket()
        self._next()

    def _fail(self) -> None:
        if not self._closed:
            self.cancel()
            self._on_failed(self._error)

    def cancel(self) -> None:
        """Stop: the connection is no longer needed."""
        self._closed = True
        self._left.clear()
        if self._lookup is not None:
            self._lookup.remove_done_callback(self._resolved)
            self._lookup = None
        self._drop_socket()

    def _drop_socket(self) -> None:
        self._stop_timer()
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def dialled(addresses: Addresses, within_s: float) -> socket.socket:
    """A connected socket that does not block. Raises OSError."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[socket.socket] = loop.create_future()

    def connected(sock: socket.socket) -> None:
        if ready.cancelled():
            sock.close()
        else:
            ready.set_result(sock)

    def failed(error: OSError) -> None:
        if not ready.cancelled():
            ready.set_exception(error)

    dial = Dial(loop, addresses, within_s, connected, failed)
    try:
        return await ready
    except asyncio.CancelledError:
        dial.cancel()
        if ready.done() and not ready.cancelled() and ready.exception() is None:
            ready.result().close()
        raise
