"""A request's head: judged by llhttp (httptools) and by our own rules, then rewritten.

A head is given to the parser whole and alone: nothing reaches a set before all of it was accepted, and the
body's framing is ours (framing.py). Pure: bytes in, a head or a refusal out.
"""

from __future__ import annotations

import re
from typing import Any, Final

import httptools

from router.wire.fields import DROP, BadHead, Field, Interner
from router.wire.head import FIRST_FREE, KINDS, Head
from router.wire.ids import HexSource
from router.wire.limits import Limits
from router.wire.problems import Refusal, bad_request, refuse

METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))

_HOST: Final = re.compile(rb"[A-Za-z0-9.\-_~%!$&'()*+;=\[\]:]*")
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
# W3C Trace Context: version 00 ends with the flags, later ones may go on after a dash, and ff is none.
_TRACE_IDS: Final = rb"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT: Final = re.compile(
    rb"00-%b|(?!00|ff)[0-9a-f]{2}-%b(?:-[\x21\x23-\x5b\x5d-\x7e]{0,128})?" % (_TRACE_IDS, _TRACE_IDS)
)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_ABSOLUTE: Final = re.compile(rb"[hH][tT][tT][pP][sS]?://([^/?]+)(.*)", re.DOTALL)

# The meaning of headers beside those that every head knows; all others pass unchanged.
_HOST_KIND, _TE_KIND, _UPGRADE_KIND, _EXPECT_KIND, _ID_KIND, _TRACE_KIND, _STATE_KIND = range(
    FIRST_FREE, FIRST_FREE + 7
)

_KINDS: Final = KINDS | {
    b"host": _HOST_KIND,
    b"http2-settings": DROP,
    b"te": _TE_KIND,
    b"upgrade": _UPGRADE_KIND,
    b"expect": _EXPECT_KIND,
    b"x-request-id": _ID_KIND,
    b"traceparent": _TRACE_KIND,
    b"tracestate": _STATE_KIND,
    b"x-forwarded-for": DROP,
    b"x-forwarded-proto": DROP,
    b"x-forwarded-host": DROP,
    b"x-forwarded-port": DROP,
    b"x-forwarded-prefix": DROP,
    b"forwarded": DROP,
    b"x-real-ip": DROP,
    b"x-set": DROP,
}

# Servers behind us may read `_` as `-`: such a copy of a header that means something must not slip by.
_MEANINGFUL: Final = (
    b"x-account",
    b"x-user-id",
    b"idempotency-key",
    b"x-callback-url",
    b"x-task-id",
    b"content-type",
)
_SHADOWED: Final = frozenset(name.replace(b"-", b"_") for name in (*_KINDS, *_MEANINGFUL) if b"-" in name)


def _check_name(low: bytes) -> None:
    if b"_" in low and low in _SHADOWED:
        raise bad_request(f"header {low.decode()!r}: write it with dashes, not underscores")


class _Silent:
    """A protocol for httptools that wants no callbacks: the parser then only judges."""


_fields = Interner(_KINDS, _check_name)
_silent = _Silent()
_hex = HexSource()


class RequestHead(Head):
    """One request's head, checked. `target` is path and query as sent."""

    # Routing, framing and the account depend on these.
    not_nominable = frozenset(
        (b"host", b"content-length", b"transfer-encoding", b"authorization", b"x-account", b"x-user-id")
    )
    host: bytes | None = None
    expects_continue = False
    takes_trailers = False
    request_id = b""
    traceparent = b""
    purpose: Any = None
    facts: Any = None
    """For the router's own use: the request's purpose and the facts for choosing a set, once they are read from the
    head."""
    logged: bytes | None = None
    """The fields that the access log has of this head."""
    _sent_id = b""
    _sent_trace = b""
    _has_trace = False
    _states = b""
    _upgrade = b""
    _prefix = b""

    def __init__(self, method: bytes, target: bytes, minor: int, fields: list[Field]) -> None:
        self.method = method
        self.target = target
        super().__init__(minor, fields)
        if minor == 0:
            self.expects_continue = False  # HTTP/1.0 does not have it.
        elif self.host is None:
            raise BadHead("the Host header is missing")
        if target[:1] != b"/" or b"#" in target:
            self._check_target()
        self.path, _, self.query = self.target.partition(b"?")
        if self._sent_trace and self._states:
            self.lines.append(b"tracestate: %b\r\n" % self._states)
        self._name()

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    def again(self) -> RequestHead:
        """Return this head for the next request whose head is the same, byte for byte, once this request is over. The
        copy gets a request id of its own if the client sent none."""
        self._name()
        return self

    def _name(self) -> None:
        """Make the request id and the trace's parent where the client sent none that is valid."""
        if not self._sent_trace:
            digits = _hex.take(48)
            self.traceparent = b"00-%b-%b-00" % (digits[:32], digits[32:])
        self.request_id = self._sent_id or self.traceparent[3:35]

    def _note(self, kind: int, value: bytes) -> None:
        if kind == _HOST_KIND:
            if self.host is not None:
                raise BadHead("the Host header appears twice; send it once")
            if not _HOST.fullmatch(value):
                raise BadHead("the Host header is no host name")
            self.host = value
        elif kind == _UPGRADE_KIND:
            self._upgrade += value.lower()
        elif kind == _TE_KIND:
            self.takes_trailers = self.takes_trailers or b"trailers" in value.lower()
        elif kind == _EXPECT_KIND:
            if value.lower() != b"100-continue":
                raise refuse(
                    417, "expectation", "This expectation is unknown", "Expect knows only '100-continue'"
                )
            self.expects_continue = True
        elif kind == _ID_KIND:
            if not self._sent_id and _REQUEST_ID.fullmatch(value):
                self._sent_id = value
        elif kind == _TRACE_KIND:
            # Two values contradict each other, so neither is used.
            valid = not self._has_trace and _TRACEPARENT.fullmatch(value)
            self._sent_trace = self.traceparent = value if valid else b""
            self._has_trace = True
        elif kind == _STATE_KIND:
            self._states = self._states + b"," + value if self._states else value

    def _check_target(self) -> None:
        target = self.target
        if b"#" in target:
            raise BadHead("the request's target holds a fragment; leave out what begins with '#'")
        match = _ABSOLUTE.fullmatch(target)
        if match is not None:
            if not _HOST.fullmatch(match[1]):
                raise BadHead("the request's target names no valid host")
            self.host = match[1]
            rest: bytes = match[2]
            self.target = rest if rest[:1] == b"/" else b"/" + rest
        elif not (target == b"*" and self.method == b"OPTIONS"):
            raise BadHead("the request's target must begin with '/'")

    def _obey(self, connection: set[bytes]) -> None:
        if b"upgrade" in connection and b"websocket" in self._upgrade:
            raise BadHead(
                "WebSocket is not served here; send an ordinary request and read the streamed answer"
            )
        super()._obey(connection)

    def forward(self, client: bytes, set_host: bytes) -> bytes:
        """The head as a set gets it. `client`: the lines that tell of the client, with the empty line after
        them."""
        prefix = self._prefix
        if not prefix:
            prefix = self._opening(set_host if self.host is None else self.host)
            if self.host is not None:
                self._prefix = prefix
        return b"".join((prefix, self.request_id, b"\r\ntraceparent: ", self.traceparent, client))

    def _opening(self, host: bytes) -> bytes:
        """The lines that are the same for all requests with this head."""
        framing = b""
        if self.content_length is not None:
            framing = b"Content-Length: %d\r\n" % self.content_length
        elif self.chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%bX-Request-Id: " % (
            self.method,
            self.target,
            host,
            b"".join(self.lines),
            framing,
            b"Expect: 100-continue\r\n" if self.expects_continue else b"",
        )


def client_lines(address: bytes, scheme: bytes = b"http") -> bytes:
    """The end of every head that goes to a set: who asks, and how."""
    return b"\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n\r\n" % (address, scheme)


def parse_request(raw: bytes, limits: Limits) -> RequestHead:
    """The head in `raw`, which is exactly one head with its empty line. Raises `Refusal`."""
    lines = raw.split(b"\r\n")
    first = lines[0]
    if len(first) > limits.request_line_bytes:
        raise line_too_long(limits)
    if len(raw) > limits.head_bytes:
        raise head_too_long(limits)
    try:
        httptools.HttpRequestParser(_silent).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # CONNECT and WebSocket are refused below; any other upgrade is ignored, as RFC 9110 allows.
    except httptools.HttpParserInvalidMethodError:
        raise unknown_method() from None
    except httptools.HttpParserError as error:
        raise bad_request(f"{error}; see RFC 9112") from None
    parts = first.split(b" ")
    if len(parts) != 3:
        raise bad_request("the request line must be METHOD TARGET HTTP/1.1, with single spaces")
    method, target, version = parts
    if method not in METHODS:
        if method == b"CONNECT":
            raise bad_request("CONNECT is refused: this is no forward proxy")
        raise unknown_method()
    if version == b"HTTP/1.1":
        minor = 1
    elif version == b"HTTP/1.0":
        minor = 0
    else:
        raise bad_request(f"{version.decode('latin-1')} is not served here; use HTTP/1.1")
    try:
        return RequestHead(method, target, minor, _fields.read(lines[1:-2]))
    except BadHead as error:
        raise bad_request(str(error)) from None


def refuse_part(part: bytes, limits: Limits) -> Refusal | None:
    """Refuse a head that is not complete yet, if its beginning is enough to tell."""
    line_end = part.find(b"\r\n")
    if (line_end if line_end >= 0 else len(part)) > limits.request_line_bytes:
        return line_too_long(limits)
    if len(part) > limits.head_bytes:
        return head_too_long(limits)
    if _BARE_LF.search(part):
        return bad_request("lines must end with CR LF")
    return None


def line_too_long(limits: Limits) -> Refusal:
    return refuse(
        414,
        "request-line-too-long",
        "The request line is too long",
        f"the request line may be {limits.request_line_bytes} bytes long; send large arguments in the body",
    )


def head_too_long(limits: Limits) -> Refusal:
    return refuse(
        431,
        "headers-too-long",
        "The headers are too long",
        f"request line and headers may be {limits.head_bytes} bytes long together",
    )


def unknown_method() -> Refusal:
    known = ", ".join(sorted(method.decode() for method in METHODS))
    return refuse(501, "unknown-method", "This method is unknown", f"use one of {known}")
