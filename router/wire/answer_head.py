"""An answer's head: judged by llhttp, its framing read strictly, then written anew for the client. Pure."""

from __future__ import annotations

import re

import httptools

from .fields import DROP, PASS, Field, Interner, SilentParser

_LENGTH = re.compile(rb"[0-9]{1,18}")

_LENGTH_KIND, _CODING_KIND, _CONNECTION_KIND = range(2, 5)

_KINDS = {
    b"content-length": _LENGTH_KIND,
    b"transfer-encoding": _CODING_KIND,
    b"connection": _CONNECTION_KIND,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"te": DROP,
    b"trailer": DROP,
    b"upgrade": DROP,
    b"x-router": DROP,
    b"x-request-id": DROP,
}

_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_fields = Interner(_KINDS)
_silent = SilentParser()


class BadAnswer(Exception):
    """A set's answer is not valid HTTP/1.1; the message says what is wrong."""


class AnswerHead:
    """One answer's head. `keep_alive`: the set's connection may be used again, as far as the head says."""

    content_length: int | None = None
    chunked = False

    def __init__(self, status: int, reason: bytes, minor: int, fields: list[Field]) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.keep_alive = minor == 1
        self.lines = [field[3] for field in fields if not field[0]]
        """The header lines to relay, without framing."""
        for kind, _, value, _ in fields:
            if kind <= DROP:
                continue
            if kind == _LENGTH_KIND:
                if self.content_length is not None or not _LENGTH.fullmatch(value):
                    raise BadAnswer("Content-Length must be one number, once")
                self.content_length = int(value)
            elif kind == _CODING_KIND:
                if self.chunked or value.lower() != b"chunked":
                    raise BadAnswer("Transfer-Encoding must be exactly 'chunked', once")
                self.chunked = True
            elif value != b"keep-alive" or minor == 0:
                self._check_connection(value, minor)
        if self.chunked and (self.content_length is not None or minor == 0):
            raise BadAnswer("Content-Length and Transfer-Encoding exclude each other")

    def _check_connection(self, value: bytes, minor: int) -> None:
        tokens = {token.strip() for token in value.lower().split(b",")}
        if b"close" in tokens:
            self.keep_alive = False
        elif minor == 0 and b"keep-alive" in tokens:
            self.keep_alive = True
        named = tokens - {b"", b"close", b"keep-alive", b"upgrade"}
        if named:
            self.lines = [field[3] for field in self.fields if field[0] == PASS and field[1] not in named]

    def get(self, name: bytes) -> bytes | None:
        """The value of the first header of that lower-case name."""
        for field in self.fields:
            if field[1] == name:
                return field[2]
        return None

    @property
    def bodiless(self) -> bool:
        """Whether the status alone forbids a body."""
        return self.status < 200 or self.status == 204 or self.status == 304

    @property
    def problem(self) -> bool:
        """Whether the body is a problem's JSON."""
        value = self.get(b"content-type")
        return value is not None and value[:24].lower() == b"application/problem+json"

    def relay(self, *, chunked: bool, length: int | None, connection: bytes, request_id: bytes) -> bytes:
        """The head as the client gets it, with the framing and the Connection line given."""
        if chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif length is not None:
            framing = b"Content-Length: %d\r\n" % length
        else:
            framing = b""
        return b"HTTP/1.1 %d %b\r\n%b%bX-Request-Id: %b\r\n%b\r\n" % (
            self.status,
            self.reason,
            b"".join(self.lines),
            framing,
            request_id,
            connection,
        )


def parse_answer(raw: bytes) -> AnswerHead:
    """The head in `raw`, exactly one head with its empty line. Raises `BadAnswer`."""
    try:
        httptools.HttpResponseParser(_silent).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadAnswer(str(error)) from None
    lines = raw.split(b"\r\n")
    first = lines[0]
    version = first[:9]
    status = first[9:12]
    if version not in _VERSIONS or not status.isdigit() or not b"100" <= status <= b"599":
        raise BadAnswer(f"its status line is {first[:60]!r}")
    return AnswerHead(int(status), first[13:], 1 if version == b"HTTP/1.1 " else 0, _fields.read(lines[1:-2]))
