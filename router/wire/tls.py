"""TLS for clients: a certificate that is read again when its files change, and a socket that encrypts.

`TlsSocket` has what `wire.stream.Stream` uses of a socket, with a socket's errors, so that the data plane is the same
with TLS and without. HTTP/2 is left to a balancer in front (`ops/front/`): ALPN offers http/1.1 alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from router.errors import RouterError

RECORD_BYTES: Final = 16 * 1024
"""Most bytes in one TLS record."""
HEADER_BYTES: Final = 5
"""Length of a record's header: its type, a version, and its length."""
HANDSHAKE_S: Final = 10.0
MOST_HANDSHAKES: Final = 1024
"""At once; when more begin, the oldest is given up: clients that go on with theirs are never that many."""
WARN_BEFORE_S: Final = 14 * 86400.0
WARN_EVERY_S: Final = 86400.0
TICKETS: Final = 1
"""For a client's next connection; each costs a tenth of a handshake."""
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_ABORT: Final = b"\1\0\0\0\0\0\0\0"
_Stamp = tuple[tuple[int, int, int, int], ...]

log = structlog.get_logger()


class TlsError(RouterError):
    """The certificate or its key cannot be used."""


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files: the certificate with those that signed it behind it, and its key."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Raises `TlsError`."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        made.set_alpn_protocols(["http/1.1"])
        made.num_tickets = TICKETS
        try:
            # Without a password of ours OpenSSL would ask the terminal for one.
            made.load_cert_chain(self.cert, self.key, password=lambda: "")
        except (OSError, ssl.SSLError, ValueError) as error:
            said = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise TlsError(f"{self.cert} with {self.key} cannot be used: {said}") from error
        return made

    def doubt(self, now: float) -> str | None:
        """Return why clients refuse the certificate for its dates, or will soon; None: they do not. `now`: seconds
        since 1970. Raises `TlsError` if it cannot be used at all."""
        not_after = _not_after(self.context(), self.cert.read_text("latin-1"))
        if isinstance(not_after, str):
            return f"{self.cert}: clients refuse it: {not_after}"
        left_s = not_after - now
        if left_s > WARN_BEFORE_S:
            return None
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(not_after))
        return f"{self.cert} expires in {max(0.0, left_s) / 86400:.1f} days, on {when}: renew it"

    def stamp(self) -> _Stamp | None:
        """A value that changes when a file is changed or replaced, or its link swings; None: a file is missing."""
        try:
            found = [os.stat(path) for path in (self.cert, self.key)]
        except OSError:
            return None
        return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


def _not_after(context: ssl.SSLContext, pem: str) -> float | str:
    """Return when the first certificate in `pem` ends, in seconds since 1970; or what is wrong with it now.

    The module ssl shows a certificate's dates only to clients, so there is a client in memory that trusts this very
    certificate.
    """
    first = _PEM.search(pem)
    if first is None:
        return "there is no certificate in it"
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(cadata=first[0])
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(down, up)
    server = context.wrap_bio(up, down, server_side=True)
    try:
        for _ in range(4):
            for side in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        known = {
            _EXPIRED: "it has expired; renew it",
            _NOT_YET: "it is not valid yet; look at its dates and the clock",
        }
        return known.get(error.verify_code, error.verify_message)
    except ssl.SSLError as error:
        return str(error)
    said = client.getpeercert()
    return float(ssl.cert_time_to_seconds(str(said["notAfter"]))) if said else "it says nothing of its end"


class Certificate:
    """The context for new connections. `error`: why it was not made from the files as they are now."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises `TlsError`."""
        self._files = files
        self._stamp = files.stamp()
        self.context = files.context()
        self.error: str | None = None
        self.reloads = 0
        self.failures = 0
        self.doubt: str | None = None
        """Why clients refuse the one in use, or will soon."""
        self._warned_at = 0.0
        self._judge()

    def look(self) -> None:
        """Read the files if they changed; if there are mistakes in them, the last good ones stay. Small file I/O."""
        self._read()
        if time.time() - self._warned_at > WARN_EVERY_S:
            self._judge()

    def _judge(self) -> None:
        self._warned_at = time.time()
        if self.error is None:
            # The next read reports an unreadable file.
            with contextlib.suppress(TlsError, OSError):
                self.doubt = self._files.doubt(self._warned_at)
        if self.doubt is not None:
            log.warning("warning about the certificate", file=str(self._files.cert), warning=self.doubt)

    def _read(self) -> None:
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            context = self._files.context()
        except TlsError as error:
            # A certificate that arrives before its key is loaded when the key arrives.
            self.error = str(error)
            self.failures += 1
            log.error("certificate is not taken: the one before stays in use", reason=self.error)
            return
        self.context = context
        self.error = None
        self.reloads += 1
        log.info("certificate in use for new connections", file=str(self._files.cert))
        self._judge()


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
