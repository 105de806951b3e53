"""Heads of requests and answers: parsed by llhttp (httptools), then checked for what llhttp lets through,
then written anew.

A head is fed to the parser whole and alone, so what it accepts is complete before anything is sent to a set,
and the body's framing is ours (framing.py). Pure: bytes in, heads or refusals out.
"""

from __future__ import annotations

import random
import re

import httptools

from .limits import Limits
from .problems import Refusal, bad_request, refuse

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))

_TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+")
_HOST = re.compile(rb"[A-Za-z0-9.\-_~%!$&'()*+;=\[\]:]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}.{0,128}")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_ABSOLUTE = re.compile(rb"[hH][tT][tT][pP][sS]?://([^/?@]+)(.*)", re.DOTALL)

# What a header of a request is to us; all others pass unchanged.
(
    _HOST_KIND,
    _LENGTH_KIND,
    _CODING_KIND,
    _CONNECTION_KIND,
    _DROP_KIND,
    _TE_KIND,
    _UPGRADE_KIND,
    _EXPECT_KIND,
    _ID_KIND,
    _TRACE_KIND,
    _STATE_KIND,
) = range(11)

_REQUEST_KINDS = {
    b"host": _HOST_KIND,
    b"content-length": _LENGTH_KIND,
    b"transfer-encoding": _CODING_KIND,
    b"connection": _CONNECTION_KIND,
    b"keep-alive": _DROP_KIND,
    b"proxy-connection": _DROP_KIND,
    b"proxy-authenticate": _DROP_KIND,
    b"proxy-authorization": _DROP_KIND,
    b"http2-settings": _DROP_KIND,
    b"te": _TE_KIND,
    b"trailer": _DROP_KIND,
    b"upgrade": _UPGRADE_KIND,
    b"expect": _EXPECT_KIND,
    b"x-request-id": _ID_KIND,
    b"traceparent": _TRACE_KIND,
    b"tracestate": _STATE_KIND,
    b"x-forwarded-for": _DROP_KIND,
    b"x-forwarded-proto": _DROP_KIND,
    b"x-forwarded-host": _DROP_KIND,
    b"x-forwarded-port": _DROP_KIND,
    b"x-forwarded-prefix": _DROP_KIND,
    b"forwarded": _DROP_KIND,
    b"x-real-ip": _DROP_KIND,
    b"x-router": _DROP_KIND,
    b"x-set": _DROP_KIND,
}

# Gateways behind us may read `_` as `-`: such a copy of a header that means something must not slip by.
_SHADOWED = frozenset(
    name.replace(b"-", b"_")
    for name in (
        *_REQUEST_KINDS,
        b"x-account",
        b"x-user-id",
        b"idempotency-key",
        b"x-callback-url",
        b"x-task-id",
        b"content-type",
    )
    if b"-" in name
)

# A Connection header may not take these away: routing, framing and the account hang on them.
_NOT_NOMINABLE = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"authorization", b"x-account", b"x-user-id")
)

_REQUEST = (
    b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%bX-Request-Id: %b\r\ntraceparent: %b\r\n"
    b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\n\r\n"
)


class RequestHead:
    """One request's head, checked. `lines` are the header lines to forward, without those that the router
    writes itself."""

    __slots__ = (
        "_connection",
        "_upgrade",
        "chunked",
        "content_length",
        "expects_continue",
        "fields",
        "host",
        "keep_alive",
        "lines",
        "method",
        "minor",
        "path",
        "query",
        "request_id",
        "takes_trailers",
        "target",
        "traceparent",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.path = b""
        self.query = b""
        self.minor = 1
        self.fields: list[tuple[bytes, bytes, bytes]] = []
        """(lower-case name, name, value), as received."""
        self.lines: list[bytes] = []
        self.host: bytes | None = None
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.expects_continue = False
        self.takes_trailers = False
        self.request_id = b""
        self.traceparent = b""
        self._connection = b""
        self._upgrade = b""

    # Called by httptools.
    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), name, value))

    def get(self, name: bytes) -> bytes | None:
        """The value of the first header of that lower-case name."""
        for low, _, value in self.fields:
            if low == name:
                return value
        return None

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    def check(self) -> None:
        """Read the headers that mean something to a proxy; raise `Refusal` for what must not pass."""
        kinds = _REQUEST_KINDS
        lines = self.lines
        append = lines.append
        codings = 0
        for low, name, value in self.fields:
            kind = kinds.get(low)
            if kind is None:
                if b"_" in low and low in _SHADOWED:
                    raise bad_request(f"header {low.decode()!r}: write it with dashes, not underscores")
                append(b"%b: %b\r\n" % (name, value))
            elif kind == _HOST_KIND:
                if self.host is not None:
                    raise bad_request("the Host header stands there twice; send it once")
                if not _HOST.fullmatch(value):
                    raise bad_request("the Host header is no host name")
                self.host = value
            elif kind == _LENGTH_KIND:
                if self.content_length is not None or not _LENGTH.fullmatch(value):
                    raise bad_request("Content-Length must be one number, once")
                self.content_length = int(value)
            elif kind == _CODING_KIND:
                codings += 1
                if codings > 1 or value.lower() != b"chunked":
                    raise bad_request("Transfer-Encoding must be exactly 'chunked', once")
                self.chunked = True
            elif kind == _CONNECTION_KIND:
                self._connection += b"," + value.lower()
            elif kind == _TE_KIND:
                self.takes_trailers = self.takes_trailers or b"trailers" in value.lower()
            elif kind == _UPGRADE_KIND:
                self._upgrade += value.lower()
            elif kind == _EXPECT_KIND:
                if value.lower() != b"100-continue":
                    raise refuse(
                        417, "expectation", "This expectation is unknown", "Expect knows only '100-continue'"
                    )
                self.expects_continue = True
            elif kind == _ID_KIND:
                if not self.request_id and _REQUEST_ID.fullmatch(value):
                    self.request_id = value
            elif kind == _TRACE_KIND and not self.traceparent and _TRACEPARENT.fullmatch(value):
                self.traceparent = value
        if self.chunked and self.content_length is not None:
            raise bad_request("Content-Length and Transfer-Encoding exclude each other")
        if self.chunked and self.minor == 0:
            raise bad_request("HTTP/1.0 knows no Transfer-Encoding")
        if self.host is None and self.minor == 1:
            raise bad_request("the Host header is missing")
        if self.minor == 0:
            self.expects_continue = False
        self._check_target()
        self._check_connection()
        if not self.request_id:
            self.request_id = self.traceparent[3:35] or b"%032x" % random.getrandbits(128)
        if not self.traceparent:
            self.traceparent = b"00-%032x-%016x-00" % (
                int(self.request_id, 16) if _is_trace_id(self.request_id) else random.getrandbits(128) | 1,
                random.getrandbits(64) | 1,
            )
        else:
            state = self.get(b"tracestate")
            if state is not None:
                append(b"tracestate: %b\r\n" % state)

    def _check_target(self) -> None:
        target = self.target
        if not _TARGET.fullmatch(target):
            raise bad_request(
                "the request's target holds a fragment or characters that must be percent-encoded"
            )
        if target[:1] != b"/":
            match = _ABSOLUTE.fullmatch(target)
            if match is not None:
                if not _HOST.fullmatch(match[1]):
                    raise bad_request("the request's target names no valid host")
                self.host = match[1]
                rest = match[2]
                self.target = target = rest if rest[:1] == b"/" else b"/" + rest
            elif not (target == b"*" and self.method == b"OPTIONS"):
                raise bad_request("the request's target must begin with '/'")
        self.path, _, self.query = target.partition(b"?")

    def _check_connection(self) -> None:
        connection = self._connection
        if not connection:
            self.keep_alive = self.minor == 1
            return
        tokens = {token.strip() for token in connection.split(b",")}
        self.keep_alive = b"close" not in tokens and (self.minor == 1 or b"keep-alive" in tokens)
        if b"upgrade" in tokens and b"websocket" in self._upgrade:
            raise bad_request(
                "WebSocket is not served here; call POST /v1/run/{image} and read the streamed answer"
            )
        named = tokens - {b"", b"close", b"keep-alive", b"te", b"upgrade"} - _NOT_NOMINABLE
        if named:
            self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in named]

    def forward(self, client: bytes, set_host: bytes) -> bytes:
        """The head as a set gets it."""
        host = self.host if self.host is not None else set_host
        if self.chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif self.content_length is not None:
            framing = b"Content-Length: %d\r\n" % self.content_length
        else:
            framing = b""
        return _REQUEST % (
            self.method,
            self.target,
            host,
            b"".join(self.lines),
            framing,
            b"Expect: 100-continue\r\n" if self.expects_continue else b"",
            self.request_id,
            self.traceparent,
            client,
        )


def _is_trace_id(text: bytes) -> bool:
    return re.fullmatch(rb"(?!0{32})[0-9a-f]{32}", text) is not None


def parse_request(raw: bytes, limits: Limits) -> RequestHead:
    """The head in `raw`, which is exactly one head with its empty line. Raises `Refusal`."""
    line_end = raw.find(b"\r\n")
    if line_end > limits.request_line_bytes:
        raise line_too_long(limits)
    if len(raw) > limits.head_bytes:
        raise head_too_long(limits)
    head = RequestHead()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # CONNECT and WebSocket are refused below; any other upgrade is ignored, as RFC 9110 allows.
    except httptools.HttpParserInvalidMethodError:
        raise refuse(501, "unknown-method", "This method is unknown", _methods()) from None
    except httptools.HttpParserError as error:
        raise bad_request(f"{error}; see RFC 9112") from None
    version = parser.get_http_version()
    if version != "1.1":
        if version != "1.0":
            raise bad_request(f"HTTP/{version} is not served here; use HTTP/1.1")
        head.minor = 0
    head.method = parser.get_method()
    if head.method not in METHODS:
        if head.method == b"CONNECT":
            raise bad_request("CONNECT is refused: this is no forward proxy")
        raise refuse(501, "unknown-method", "This method is unknown", _methods())
    head.check()
    return head


def refuse_part(part: bytes, limits: Limits) -> Refusal | None:
    """Whether a head that is not complete yet can be refused already."""
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


def _methods() -> str:
    return "use one of " + ", ".join(sorted(method.decode() for method in METHODS))


_ANSWER_DROPS = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"upgrade",
        b"x-router",
        b"alt-svc",
    )
)


class BadAnswer(Exception):
    """A set's answer that is not valid HTTP/1.1; the message says what is wrong."""


class AnswerHead:
    """One answer's head. `lines` are the header lines to relay, without framing."""

    __slots__ = (
        "_codings",
        "_connection",
        "chunked",
        "content_length",
        "has_request_id",
        "has_task_id",
        "keep_alive",
        "lines",
        "problem",
        "reason",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.lines: list[bytes] = []
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.has_task_id = False
        self.has_request_id = False
        self.problem = False
        """Its content type is application/problem+json."""
        self._codings = 0
        self._connection = b""

    # Called by httptools.
    def on_status(self, text: bytes) -> None:
        self.reason += text

    def on_header(self, name: bytes, value: bytes) -> None:
        low = name.lower()
        if low == b"content-length":
            if self.content_length is not None or not _LENGTH.fullmatch(value):
                raise BadAnswer("Content-Length must be one number, once")
            self.content_length = int(value)
        elif low == b"transfer-encoding":
            self._codings += 1
            if self._codings > 1 or value.lower() != b"chunked":
                raise BadAnswer("Transfer-Encoding must be exactly 'chunked'")
            self.chunked = True
        elif low in _ANSWER_DROPS:
            if low == b"connection":
                self._connection += b"," + value.lower()
        else:
            if low == b"x-task-id":
                self.has_task_id = True
            elif low == b"x-request-id":
                self.has_request_id = True
            elif low == b"content-type" and value[:24].lower() == b"application/problem+json":
                self.problem = True
            self.lines.append(b"%b: %b\r\n" % (name, value))

    @property
    def bodiless(self) -> bool:
        """Whether the status alone forbids a body."""
        return self.status < 200 or self.status in (204, 304)

    def finish(self, minor: int) -> None:
        connection = self._connection
        if connection:
            tokens = {token.strip() for token in connection.split(b",")}
            self.keep_alive = b"close" not in tokens and (minor == 1 or b"keep-alive" in tokens)
            named = tokens - {b"", b"close", b"keep-alive", b"upgrade", b"content-length"}
            if named:
                self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in named]
        else:
            self.keep_alive = minor == 1

    def relay(self, *, chunked: bool, length: int | None, close: bool, request_id: bytes) -> bytes:
        """The head as the client gets it, with the framing given."""
        if chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif length is not None:
            framing = b"Content-Length: %d\r\n" % length
        else:
            framing = b""
        return b"HTTP/1.1 %d %b\r\n%b%b%b%b\r\n" % (
            self.status,
            self.reason,
            b"".join(self.lines),
            framing,
            b"" if self.has_request_id else b"X-Request-Id: %b\r\n" % request_id,
            b"Connection: close\r\n" if close else b"",
        )


def parse_answer(raw: bytes) -> AnswerHead:
    """The head in `raw`, exactly one head with its empty line. Raises `BadAnswer`."""
    head = AnswerHead()
    parser = httptools.HttpResponseParser(head)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserCallbackError as error:
        raise BadAnswer(str(error.__context__ or error)) from None
    except httptools.HttpParserError as error:
        raise BadAnswer(str(error)) from None
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise BadAnswer(f"HTTP/{version}")
    head.status = parser.get_status_code()
    if not 100 <= head.status <= 599:
        raise BadAnswer(f"status {head.status}")
    if head.chunked and (head.content_length is not None or version == "1.0"):
        raise BadAnswer("Content-Length and Transfer-Encoding exclude each other")
    head.finish(1 if version == "1.1" else 0)
    return head
