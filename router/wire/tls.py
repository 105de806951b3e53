"""TLS for clients: handshakes, and a socket that encrypts.

`TlsSocket` has what `wire.stream.Stream` uses of a socket, with a socket's errors, so that the data plane is the same
with TLS and without.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

RECORD_BYTES: Final = 16 * 1024
"""Most bytes in one TLS record."""
HEADER_BYTES: Final = 5
"""Length of a record's header: its type, a version, and its length."""
HANDSHAKE_S: Final = 10.0
MOST_HANDSHAKES: Final = 1024
"""At once; when more begin, the oldest is given up: clients that go on with theirs are never that many."""
_ABORT: Final = b"\1\0\0\0\0\0\0\0"


class TlsSocket:
    """A connected, non-blocking socket after its handshake."""

    __slots__ = ("_aborted", "_sock", "fileno")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._aborted = False
        self.fileno = sock.fileno

    def recv_into(self, view: memoryview, count: int) -> int:
        """Receive into `view`; returns the number of bytes, 0 at the end. A large body comes several records at once.

        `count` must be 16 KiB or more: with less, part of a record would be left, which no event announces.
        """
        sock = self._sock
        try:
            got = sock.recv_into(view, count)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0
        if got == RECORD_BYTES:
            while got + RECORD_BYTES <= count and self._full_record_waits():
                try:
                    got += sock.recv_into(view[got:], count - got)
                except OSError:  # The record is incomplete or broken: the next event will show which.
                    break
        return got

    def _full_record_waits(self) -> bool:
        """Return True if the next record is a full one: a piece of a body, not an alert, whose event would be lost.
        Between two records OpenSSL has read nothing ahead."""
        try:
            header = socket.socket.recv(self._sock, HEADER_BYTES, socket.MSG_PEEK)
        except OSError:
            return False
        return len(header) == HEADER_BYTES and int.from_bytes(header[3:], "big") > RECORD_BYTES

    def send(self, data: bytes | memoryview) -> int:
        """Send as much as the kernel takes, in whole records.

        OpenSSL wants a refused record again exactly as it was, so the start of the next record may depend only on what
        was sent.
        """
        try:
            if len(data) <= RECORD_BYTES:
                return self._sock.send(data)
            view = memoryview(data)
            sent = self._sock.send(view[:RECORD_BYTES])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError from None
        try:
            while sent < len(view):
                sent += self._sock.send(view[sent : sent + RECORD_BYTES])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        return sent

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        return self.send(b"".join(pieces))

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return self._sock.getsockopt(level, option, size)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self._aborted = self._aborted or (option == socket.SO_LINGER and value == _ABORT)
        self._sock.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        """Send the notice that nothing more comes."""
        self._say_end()
        socket.socket.shutdown(self._sock, how)

    def close(self) -> None:
        if not self._aborted:
            self._say_end()
        self._sock.close()

    def _say_end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._sock.unwrap()


class Handshake:
    """One client's handshake, within `HANDSHAKE_S`; then `done` gets the socket, or `failed` is called."""

    __slots__ = ("_done", "_failed", "_loop", "_sock", "_timer", "_writing", "since")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        sock: socket.socket,
        done: Callable[[TlsSocket], None],
        failed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        self._done = done
        self._failed = failed
        self._writing = False
        self.since = loop.time()
        self._timer = loop.call_later(HANDSHAKE_S, self.abandon)
        loop.add_reader(self._sock.fileno(), self._step)

    def _step(self) -> None:
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sock.fileno(), self._step)
            return
        except (OSError, ValueError):
            self.abandon()
            return
        self._leave()
        self._done(TlsSocket(self._sock))

    def abandon(self) -> None:
        """Close the connection: the handshake failed, took too long, or is no longer needed."""
        self._leave()
        self._sock.close()
        self._failed()

    def _leave(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())


class Handshakes:
    """The handshakes under way, the oldest first, at most `MOST_HANDSHAKES`. `ready` gets the socket and the value that
    `begin` was given with it; `failed` is called for each that fails."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ready: Callable[[TlsSocket, bytes], None],
        failed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._ready = ready
        self._failed = failed
        self._under_way: dict[Handshake, None] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(self, context: ssl.SSLContext, sock: socket.socket, peer: bytes) -> None:
        """Begin a handshake with a client that was just accepted."""

        def done(made: TlsSocket) -> None:
            del self._under_way[handshake]
            self._ready(made, peer)

        def failed() -> None:
            del self._under_way[handshake]
            self._failed()

        if len(self._under_way) >= MOST_HANDSHAKES:
            next(iter(self._under_way)).abandon()
        try:
            handshake = Handshake(self._loop, context, sock, done, failed)
        except (OSError, ValueError):  # Gone already.
            sock.close()
            self._failed()
            return
        self._under_way[handshake] = None

    def abandon(self, older_than_s: float) -> None:
        """Give up the handshakes that take too long."""
        before = self._loop.time() - older_than_s
        for handshake in tuple(self._under_way):
            if handshake.since > before:
                break
            handshake.abandon()
