"""The ends of the certificates of a link: read from this end's folder and the other end's handshake; logged in time.

A link goes on after its certificates have ended, but no new one can be made: an executor that restarts is then out of
reach.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from sets.executor.link.names import CA_FILE, IDENTITY_FILE, Certificates

log = structlog.get_logger()

DAY_S: Final = 86_400
WARN_S: Final = 21 * DAY_S
"""How long before its end a certificate is warned of, in seconds: time to issue it again in working hours."""
CHECK_S: Final = 3600.0
"""How often, in seconds, the ends are looked at: a renewed certificate is seen within that time."""
AGAIN_S: Final = DAY_S
"""How often, in seconds, the same certificate is warned of."""
OWN: Final = "own"
AUTHORITY: Final = "authority"

Ends = Mapping[str, float]
"""When certificates end, as Unix times: `own`, `authority`, or the name of a node."""


def own_ends(certificates: Certificates) -> dict[str, float]:
    """Return when this end's certificate ends, and the authority that ends last.

    A file that cannot be read is left out: the next connection fails with the reason.
    """
    # A set without executors never needs it, and it takes longer to import than all of the link.
    from cryptography import x509

    found: dict[str, float] = {}
    for name, file in ((OWN, IDENTITY_FILE), (AUTHORITY, CA_FILE)):
        try:
            read = x509.load_pem_x509_certificates((certificates.folder / file).read_bytes())
        except (OSError, ValueError):
            continue
        ends = [each.not_valid_after_utc.timestamp() for each in read]
        # The identity comes first; authorities of before may have ended.
        found[name] = ends[0] if name == OWN else max(ends)
    return found


def peer_end(certificate: Mapping[str, Any]) -> float | None:
    """Return when the other end's certificate ends, as `ssl.SSLSocket.getpeercert` gives it; None if it says none."""
    end = certificate.get("notAfter")
    return None if end is None else float(ssl.cert_time_to_seconds(end))


class ExpiryWatch:
    """Warns of certificates that end soon, once a day each. `ends` is asked every hour."""

    def __init__(self, ends: Callable[[], Ends], *, now: Callable[[], float] = time.time) -> None:
        self._ends = ends
        self._now = now
        self._warned: dict[str, float] = {}

    async def run(self) -> None:
        """Watch until it is cancelled."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_S)

    def check(self) -> None:
        """Log a warning for each certificate that ends soon, or has ended."""
        now = self._now()
        for certificate, end in self._ends().items():
            if end - now > WARN_S:
                self._warned.pop(certificate, None)
            elif now - self._warned.get(certificate, float("-inf")) >= AGAIN_S:
                self._warned[certificate] = now
                log.warning(
                    "certificate ends soon" if end > now else "certificate has ended",
                    certificate=certificate,
                    days_left=round((end - now) / DAY_S, 1),
                    next="issue it again with `gcompute cert`; it is read for the next connection",
                )
