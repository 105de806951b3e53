"""Parses the head of a request, strictly by RFC 9112, and makes its ASGI scope. Pure.

A head is parsed as a whole. Request smuggling works on the framing, so anything but exactly one Content-Length, or
exactly `Transfer-Encoding: chunked`, is refused, as in the router (tests/sets/http/test_router_corpus.py).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from sets.http.refusal import Refusal

Scope = dict[str, Any]
Address = tuple[str, int] | None

METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
REQUEST_LINE_BYTES: Final = 65_536
FIELDS: Final = 100
FIELD_BYTES: Final = 16_384
HEAD_BYTES: Final = 196_608
"""Maximum size of a head, in bytes."""
LENGTH_DIGITS: Final = 18
KNOWN_LINES: Final = 4_096
KNOWN_LINE_BYTES: Final = 256
"""Parsed lines up to this size, in bytes, are cached: clients and routers repeat them."""

_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(%b) ([\x21-\x7e]+) ([\x21-\x7e]+)" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b):[ \t]*([\t\x20-\x7e\x80-\xff]*)" % _TOKEN)
_HOST: Final = re.compile(rb"[A-Za-z0-9.\-_~%!$&'()*+;=\[\]:]*")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE | re.DOTALL)
_TOO_LARGE: Final = "the request's headers are too many or too large"

_known: dict[bytes, tuple[bytes, bytes]] = {}


class RequestLine(NamedTuple):
    """A request line: `path` and `query` as sent, and `decoded`, the path as ASGI wants it."""

    method: str
    path: bytes
    query: bytes
    decoded: str
    version: str


class RequestHead:
    """A request's head. `keep_alive`: the connection may be used again; `waits`: the client waits for `100 Continue`.
    `content_length` is 0 if no length is given."""

    __slots__ = ("_line", "chunked", "content_length", "headers", "keep_alive", "waits")

    def __init__(self, raw: bytes) -> None:
        """Parse `raw`, which is exactly one head with its empty line. Raises `Refusal`."""
        # Checked first, because it is also found first when a head comes in pieces.
        if raw.count(b"\n") != raw.count(b"\r\n"):
            raise bare_line_feed()
        lines = raw[:-4].split(b"\r\n")
        line = lines.pop(0)
        if len(line) > REQUEST_LINE_BYTES:
            raise line_too_long()
        if len(raw) > HEAD_BYTES:
            raise head_too_large()
        self._line = _known_line(line) if len(line) <= KNOWN_LINE_BYTES else _request_line(line)
        if len(lines) > FIELDS:
            raise Refusal(431, f"{_TOO_LARGE} ({FIELDS} fields at most)")
        # Lower-case names, as ASGI wants them.
        self.headers: list[tuple[bytes, bytes]] = [_known.get(line) or _learn(line) for line in lines]
        self._read_fields()

    def scope(self, server: Address, client: Address) -> Scope:
        """Return the ASGI scope."""
        line = self._line
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": line.version,
            "method": line.method,
            "scheme": "http",
            "path": line.decoded,
            "raw_path": line.path,
            "query_string": line.query,
            "root_path": "",
            "headers": self.headers,
            "server": server,
            "client": client,
        }

    def _read_fields(self) -> None:
        found: dict[bytes, bytes] = {}
        for name, value in self.headers:
            if name in _MEANT:
                if name in found:
                    if name != b"connection":
                        raise Refusal(400, f"the header {name.decode().title()} came twice")
                    value = found[name] + b"," + value
                found[name] = value
        modern = self._line.version == "1.1"
        host = found.get(b"host")
        if host is None:
            if modern:
                raise Refusal(400, "the header Host is missing")
        elif not _HOST.fullmatch(host):
            raise Refusal(400, "the header Host is no host name")
        length = found.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > LENGTH_DIGITS:
            raise Refusal(400, f"Content-Length must be one number of {LENGTH_DIGITS} digits at most")
        self.content_length = int(length)
        coding = found.get(b"transfer-encoding")
        self.chunked = coding is not None
        if coding is not None:
            if coding.lower() != b"chunked":
                raise Refusal(501, "only `Transfer-Encoding: chunked` is understood")
            if not modern:
                raise Refusal(400, "Transfer-Encoding is not of HTTP/1.0: send a Content-Length")
            if b"content-length" in found:
                raise Refusal(400, "Content-Length and Transfer-Encoding exclude each other")
        expects = found.get(b"expect")
        if expects is not None and expects.lower() != b"100-continue":
            raise Refusal(417, "Expect knows only '100-continue'")
        self.waits = modern and expects is not None
        self.keep_alive = modern
        connection = found.get(b"connection")
        if connection is not None:
            tokens = {token.strip() for token in connection.lower().split(b",")}
            # No other protocol is offered. A client that asks for one gets its answer, and the connection closes.
            last = b"close" in tokens or b"upgrade" in tokens
            self.keep_alive = not last and (modern or b"keep-alive" in tokens)


_MEANT: Final = frozenset(
    (b"host", b"content-type", b"content-length", b"transfer-encoding", b"connection", b"expect")
)
"""Headers that are interpreted here; each except Connection may come only once."""


def bare_line_feed() -> Refusal:
    return Refusal(400, "lines must end with CR LF")


def line_too_long() -> Refusal:
    return Refusal(414, "the request line is longer than 64 KiB: send large arguments as the body")


def head_too_large() -> Refusal:
    return Refusal(431, f"{_TOO_LARGE} ({HEAD_BYTES} bytes at most)")


def _learn(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise Refusal(400, "a header line must be a name, a colon and a value, and end with CR LF")
    if len(line) > FIELD_BYTES:
        raise Refusal(431, f"{_TOO_LARGE} (one field may have {FIELD_BYTES} bytes)")
    field = (match[1].lower(), match[2].rstrip(b" \t"))
    if len(line) <= KNOWN_LINE_BYTES:
        if len(_known) >= KNOWN_LINES:
            _known.clear()
        _known[line] = field
    return field


def _request_line(line: bytes) -> RequestLine:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Refusal(400, "the request line must be METHOD TARGET HTTP/1.1, with single spaces")
    method, target, protocol = match.groups()
    if method == b"CONNECT":
        raise Refusal(400, "CONNECT: a set is no proxy")
    if protocol not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refusal(400, f"{protocol[:20].decode()} is not understood here: send HTTP/1.1")
    if method not in METHODS:
        known = ", ".join(sorted(method.decode() for method in METHODS))
        raise Refusal(501, f"the method {method[:40].decode()} is unknown here; use one of {known}")
    path, query = _target(method, target)
    decoded = (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace")
    return RequestLine(method.decode(), path, query, decoded, protocol[5:].decode())


_known_line = lru_cache(maxsize=KNOWN_LINES)(_request_line)


def _target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Split a request's target into path and query."""
    if b"#" in target:
        raise Refusal(400, "the request's target has a fragment (#): write %23 for the character")
    if not target.startswith(b"/"):
        match = _ABSOLUTE.fullmatch(target)
        if match is not None:
            if not _HOST.fullmatch(match[1]):
                raise Refusal(400, "the request's target names no valid host")
            rest = match[2]
            target = rest if rest.startswith(b"/") else b"/" + rest
        elif not (target == b"*" and method == b"OPTIONS"):
            raise Refusal(400, "the request's target is neither a path nor an http address")
    path, _, query = target.partition(b"?")
    return path, query
