"""Asks parts over HTTP: one small question, bounded in time and size, over TCP, TLS or a unix socket."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ops.doctor.finding import CannotTell

TIMEOUT_S: Final = 5.0
"""Longest time, in seconds, that a whole answer may take."""
ANSWER_BYTES: Final = 16 << 20
"""Largest answer. A list of a thousand Nomad nodes has some 2 MB."""
_READ_BYTES: Final = 1 << 16


class NoAnswer(CannotTell):
    """Nothing answers at an address."""


@dataclass(frozen=True)
class Answer:
    """An answer of HTTP; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> Any:
        """Return the body as JSON. Raises `CannotTell`."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise CannotTell("the answer is not JSON") from error

    def object(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises `CannotTell`."""
        document = self.document()
        if not isinstance(document, dict):
            raise CannotTell("the answer is not a JSON object")
        return document


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    base: str, path: str, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Answer:
    """Ask `GET path` at `http://`, `https://` or `unix://` and follow no redirect. Raises `NoAnswer`, `CannotTell`."""
    deadline_s = time.monotonic() + TIMEOUT_S
    connection = _connection(base, tls)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        body = b""
        while part := response.read1(_READ_BYTES):
            body += part
            if len(body) > ANSWER_BYTES or time.monotonic() > deadline_s:
                raise CannotTell(f"the answer of {base} is too large or too slow")
        if response.length:
            raise NoAnswer(f"no answer at {base}: it broke off")
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
    except ssl.SSLCertVerificationError as error:
        raise CannotTell(f"the certificate of {base} is refused: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAnswer(f"no answer at {base}: {reason}") from error
    finally:
        connection.close()


def _connection(base: str, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    try:
        url = urlsplit(base)
        if url.scheme == "unix":
            return _UnixConnection(url.path)
        if url.scheme == "https" and url.hostname:
            context = tls or ssl.create_default_context()
            return http.client.HTTPSConnection(url.hostname, url.port, timeout=TIMEOUT_S, context=context)
        if url.scheme in ("http", "tcp") and url.hostname:
            return http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_S)
    except ValueError as error:
        raise CannotTell(f"{base!r} is not an address: {error}") from error
    raise CannotTell(f"{base!r} is neither an http, https, tcp nor unix address")


def tls_context(ca_file: str | None, certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
    """Return the settings for https. Raises `CannotTell` where a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if certificate is not None:
            # Without a password of ours OpenSSL would ask the terminal for one.
            context.load_cert_chain(*certificate, password=lambda: "")
    except (OSError, ValueError) as error:
        files = ", ".join(str(Path(each)) for each in (ca_file, *(certificate or ())) if each)
        raise CannotTell(f"{files} cannot be used: {getattr(error, 'strerror', None) or error}") from error
    return context
