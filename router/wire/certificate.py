"""The certificate for clients, which is read again when its files change.

ALPN offers http/1.1 alone: HTTP/2 is left to a balancer in front (`ops/front/`).
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import time
from pathlib import Path
from typing import Final

import msgspec
import structlog

from router.errors import RouterError

WARN_BEFORE_S: Final = 14 * 86400.0
WARN_EVERY_S: Final = 86400.0
TICKETS: Final = 1
"""For a client's next connection; each costs a tenth of a handshake."""
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
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
        not_after = self.not_after()
        if isinstance(not_after, str):
            return f"{self.cert}: clients refuse it: {not_after}"
        left_s = not_after - now
        if left_s > WARN_BEFORE_S:
            return None
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(not_after))
        return f"{self.cert} expires in {max(0.0, left_s) / 86400:.1f} days, on {when}: renew it"

    def not_after(self) -> float | str:
        """Return when the certificate ends, in seconds since 1970, or why clients refuse it now. Raises `TlsError`."""
        return _not_after(self.context(), self.cert.read_text("latin-1"))

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
        self.not_after: float | None = None
        """When the one in use ends, in seconds since 1970; of one that clients refuse already, a moment of the past."""
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
                end, end_now = self._files.not_after(), self._warned_at
                self.not_after = end if isinstance(end, float) else min(self.not_after or end_now, end_now)
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
