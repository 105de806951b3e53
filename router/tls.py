"""TLS for clients: a certificate that is read anew when its files change, and a socket that encrypts.

`TlsSocket` has what `wire.stream.Stream` uses of a socket, with a socket's errors, so that the data plane is the same
with TLS and without. HTTP/2 is left to a balancer in front (`ops/front/`): ALPN offers http/1.1 alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import RouterError

RECORD_BYTES = 16 * 1024
"""What one TLS record holds."""
HANDSHAKE_S = 10.0
_ABORT = b"\1\0\0\0\0\0\0\0"
_Stamp = tuple[tuple[int, int, int, int], ...]

_log = logging.getLogger("router")


class TlsError(RouterError):
    """The certificate or its key cannot be used."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with those that signed it behind it, and its key."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Raises `TlsError`."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        made.set_alpn_protocols(["http/1.1"])
        try:
            # Without a password of ours OpenSSL would ask the terminal for one.
            made.load_cert_chain(self.cert, self.key, password=lambda: "")
        except (OSError, ssl.SSLError, ValueError) as error:
            said = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise TlsError(f"{self.cert} with {self.key} cannot be used: {said}") from error
        return made

    def stamp(self) -> _Stamp | None:
        """Another value when a file changed, was replaced, or its link swung; None: one is not there."""
        try:
            found = [os.stat(path) for path in (self.cert, self.key)]
        except OSError:
            return None
        return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


class Certificate:
    """The context for new connections. `error`: why the files as they are now are not in it."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises `TlsError`."""
        self._files = files
        self._stamp = files.stamp()
        self.context = files.context()
        self.error: str | None = None
        self.reloads = 0
        self.failures = 0

    def look(self) -> None:
        """Read the files if they changed; with mistakes in them the last good ones stay. Small file I/O."""
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            context = self._files.context()
        except TlsError as error:
            # A certificate whose key is not there yet is put right by the key's own change.
            self.error = str(error)
            self.failures += 1
            _log.error("%s; the certificate before stays in use", error)
            return
        self.context = context
        self.error = None
        self.reloads += 1
        _log.info("the certificate %s is in use for new connections", self._files.cert)


class TlsSocket:
    """A connected, non-blocking socket after its handshake."""

    __slots__ = ("_aborted", "_sock", "fileno")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._aborted = False
        self.fileno = sock.fileno

    def recv_into(self, view: memoryview, count: int) -> int:
        """A record's bytes, 0 at the end. `count` is 16 KiB or more: a smaller one would leave a rest of which no event
        tells."""
        try:
            return self._sock.recv_into(view, count)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0

    def send(self, data: bytes | memoryview) -> int:
        """As much as the kernel takes, in whole records: OpenSSL wants a record that was refused once again as it was,
        so where the next one begins hangs on nothing but what was sent."""
        sent = 0
        view = memoryview(data)
        while sent < len(view):
            try:
                sent += self._sock.send(view[sent : sent + RECORD_BYTES])
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if sent:
                    break
                raise BlockingIOError from None
        return sent

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        return self.send(b"".join(pieces))

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self._aborted = self._aborted or (option == socket.SO_LINGER and value == _ABORT)
        self._sock.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        """Say that nothing more comes, and mean it."""
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
    """One client's, within `HANDSHAKE_S`; then `done` gets the socket, or `failed` is called."""

    __slots__ = ("_done", "_failed", "_loop", "_sock", "_timer", "_writing")

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
        """Close: it failed, took too long, or nobody wants it any more."""
        self._leave()
        self._sock.close()
        self._failed()

    def _leave(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
