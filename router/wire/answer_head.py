"""An answer's head: judged by llhttp, its framing read strictly, then written anew for the client. Pure."""

from __future__ import annotations

import httptools

from .fields import DROP, Field, Interner, SilentParser
from .head import KINDS, BadHead, Head

_KINDS = KINDS | {
    b"te": DROP,
    b"upgrade": DROP,
    b"x-request-id": DROP,
}

_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_fields = Interner(_KINDS)
_silent = SilentParser()


class AnswerHead(Head):
    """One answer's head."""

    def __init__(self, status: int, reason: bytes, minor: int, fields: list[Field]) -> None:
        self.status = status
        self.reason = reason
        super().__init__(minor, fields)

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
    """The head in `raw`, exactly one head with its empty line. Raises `BadHead`."""
    try:
        httptools.HttpResponseParser(_silent).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadHead(str(error)) from None
    lines = raw.split(b"\r\n")
    first = lines[0]
    version = first[:9]
    status = first[9:12]
    if version not in _VERSIONS or not status.isdigit() or not b"100" <= status <= b"599":
        raise BadHead(f"its status line is {first[:60]!r}")
    return AnswerHead(int(status), first[13:], 1 if version == b"HTTP/1.1 " else 0, _fields.read(lines[1:-2]))
