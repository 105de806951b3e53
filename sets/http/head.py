"""The head of one request, as llhttp finds it, and the ASGI scope that it makes."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

Scope = dict[str, Any]
Address = tuple[str, int] | None

REQUEST_LINE_BYTES: Final = 65_536
FIELDS: Final = 100
FIELD_BYTES: Final = 16_384
HEAD_BYTES: Final = 196_608
"""All of a head; also all of what may come between two pieces of a chunked body, and of its trailers."""

_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
_ORIGIN: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_TOO_LONG: Final = "the request line is longer than 64 KiB: send large arguments as the body"
_TOO_LARGE: Final = "the request's headers are too many or too large"


class Refusal(Exception):
    """The request is not one that a set takes: `status` and the message say why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestHead:
    """What has come of a head. `add_url` and `add_header` raise `Refusal` above the limits."""

    __slots__ = ("chunked", "content_length", "headers", "url")

    def __init__(self) -> None:
        self.url = b""
        self.content_length = 0
        self.chunked = False
        # Lower-case names, as ASGI has them.
        self.headers: list[tuple[bytes, bytes]] = []

    def add_url(self, part: bytes) -> None:
        self.url = self.url + part if self.url else part
        if len(self.url) > REQUEST_LINE_BYTES:
            raise Refusal(414, _TOO_LONG)

    def add_header(self, name: bytes, value: bytes) -> None:
        if len(name) + len(value) > FIELD_BYTES:
            raise Refusal(431, f"{_TOO_LARGE} (one field may have {FIELD_BYTES} bytes)")
        if len(self.headers) == FIELDS:
            raise Refusal(431, f"{_TOO_LARGE} ({FIELDS} fields at most)")
        # llhttp leaves the white space behind a value.
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def scope(self, method: bytes, version: str, server: Address, client: Address) -> tuple[Scope, bool]:
        """The ASGI scope of the complete head; and whether the client waits for a `100 Continue`.

        Raises `Refusal` for what llhttp lets pass and HTTP/1.1 does not.
        """
        if len(method) + len(self.url) + len(" ") * 2 + len("HTTP/1.1") > REQUEST_LINE_BYTES:
            raise Refusal(414, _TOO_LONG)
        if version not in ("1.1", "1.0"):
            raise Refusal(400, f"HTTP/{version} is not understood here: send HTTP/1.1")
        path, query = _target(method, self.url)
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": "http",
            "path": (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "server": server,
            "client": client,
        }, self._check_fields(version)

    def _check_fields(self, version: str) -> bool:
        hosts = types = 0
        waits = False
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-type":
                types += 1
            elif name == b"transfer-encoding":
                # llhttp has seen to it that "chunked" is the last one.
                if value.lower() != b"chunked":
                    raise Refusal(501, "only `Transfer-Encoding: chunked` is understood")
                if version == "1.0":
                    raise Refusal(400, "Transfer-Encoding is not of HTTP/1.0: send a Content-Length")
                self.chunked = True
            elif name == b"content-length":
                self.content_length = int(value)
            elif name == b"expect":
                waits = version == "1.1" and value.lower() == b"100-continue"
        if hosts > 1 or types > 1:
            raise Refusal(400, f"the header {'Host' if hosts > 1 else 'Content-Type'} came twice")
        if not hosts and version == "1.1":
            raise Refusal(400, "the header Host is missing")
        return waits


def _target(method: bytes, url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target."""
    if method == b"CONNECT":
        raise Refusal(400, "CONNECT: a set is no proxy")
    if not url.startswith(b"/"):
        origin = _ORIGIN.match(url)
        if origin is not None:
            url = url[origin.end() :]
            if not url.startswith(b"/"):
                url = b"/" + url
        elif url != b"*":
            raise Refusal(400, "the request's target is neither a path nor an http address")
    if b"#" in url:
        raise Refusal(400, "the request's target has a fragment (#): write %23 for the character")
    path, _, query = url.partition(b"?")
    return path, query
