"""The names in the certificates of a link, and the TLS settings of both ends."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

import msgspec

NODE_DOMAIN: Final = "node.general-compute"
SET_DOMAIN: Final = "set.general-compute"
CA_FILE: Final = "ca.pem"
"""The authorities that are trusted, in a folder of certificates."""
IDENTITY_FILE: Final = "identity.pem"
"""This end's own certificate and its key."""


class Certificates(msgspec.Struct, frozen=True):
    """A folder of certificates, as `gcompute cert` writes it.

    It is read again for each connection, so a renewed certificate needs no restart.
    """

    folder: Path

    def for_set(self) -> ssl.SSLContext:
        """Return the settings with which a set calls an executor. Raises `OSError` (`ssl.SSLError` is one)."""
        return self._made(ssl.PROTOCOL_TLS_CLIENT)

    def for_executor(self) -> ssl.SSLContext:
        """Return the settings with which an executor lets sets in. Raises `OSError`."""
        context = self._made(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that was resumed would not be checked against certificates that were exchanged since.
        context.num_tickets = 0
        return context

    def _made(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        for file, load in (
            (CA_FILE, context.load_verify_locations),
            # Without a password of ours OpenSSL would ask the terminal for one.
            (IDENTITY_FILE, lambda path: context.load_cert_chain(path, password=lambda: "")),
        ):
            path = self.folder / file
            try:
                load(path)
            except OSError as error:
                raise OSError(f"{path} cannot be used: {error.strerror or error}") from error
        return context


def node_name(node: str) -> str:
    """Return the name that a node's certificate bears."""
    return f"{node}.{NODE_DOMAIN}"


def set_name(name: str) -> str:
    """Return the name that a set's certificate bears."""
    return f"{name}.{SET_DOMAIN}"


def names_in(certificate: dict[str, Any]) -> frozenset[str]:
    """The DNS names in a certificate, as `ssl` gives it."""
    return frozenset(name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS")
