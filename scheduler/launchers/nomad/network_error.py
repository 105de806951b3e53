"""Says in words why no answer of the cluster's API came over the network."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

_NO_TLS: Final = "WRONG_VERSION_NUMBER"
_WANTS_CERTIFICATE: Final = "CERTIFICATE_REQUIRED"


def plain(error: object) -> str:
    """Return the words of the operating system or of TLS below an error, without the names of Python classes."""
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            said = each.verify_message.rstrip(".")
            return f"its certificate is not accepted ({said}); check `ca_file` and `address`"
        if isinstance(each, ssl.SSLError):
            return _tls(each.reason or "no reason was given")
        if isinstance(each, TimeoutError):
            return "it did not answer in time"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
        if isinstance(each, ConnectionError):
            return "it ended the connection without an answer"
    return str(error) or "no reason was given"


def _chain(error: object) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    while isinstance(error, BaseException):
        yield error
        error = error.__cause__ or error.__context__


def _tls(reason: str) -> str:
    if reason == _NO_TLS:
        return "it does not speak TLS; check `address`"
    if reason.endswith(_WANTS_CERTIFICATE):
        return "it wants a certificate of the registrar; check `cert_file` and `key_file`"
    return f"TLS failed: {reason.replace('_', ' ').lower()}"
