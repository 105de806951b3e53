"""An answer's head: read strictly, then rewritten for the client. Pure."""

from __future__ import annotations

import re
from typing import Final

from router.wire.fields import DROP, BadHead, Field, Interner
from router.wire.head import KINDS, Head

_KINDS: Final = KINDS | {
    b"te": DROP,
    b"upgrade": DROP,
    b"x-request-id": DROP,
}

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
MAX_STATUS_LINES: Final = 256

_fields = Interner(_KINDS)
_status_lines: dict[bytes, tuple[int, int, bytes]] = {}
"""Minor version, status and the line to relay of a status line that was read before."""


class AnswerHead(Head):
    """One answer's head. `status_line` is as the client gets it, with its CR LF."""

    def __init__(self, status: int, status_line: bytes, minor: int, fields: list[Field]) -> None:
        self.status = status
        self.status_line = status_line
        super().__init__(minor, fields)

    @property
    def bodiless(self) -> bool:
        """True when the status alone forbids a body."""
        return self.status < 200 or self.status == 204 or self.status == 304

    @property
    def opening(self) -> bytes:
        """The beginning of the head for clients, if a Content-Length is part of it."""
        own = b"Content-Length: %d\r\nX-Request-Id: " % (self.content_length or 0)
        return b"".join((self.status_line, *self.lines, own))

    def relayed(self, own: bytes) -> bytes:
        """The head as the client gets it; `own` are the router's own lines."""
        return b"".join((self.status_line, *self.lines, own, b"\r\n"))


def parse_answer(raw: bytes) -> AnswerHead:
    """The head in `raw`, exactly one head with its empty line. Raises `BadHead`."""
    lines = raw.split(b"\r\n")
    minor, status, relayed = _status_lines.get(lines[0]) or _read_status_line(lines[0])
    return AnswerHead(status, relayed, minor, _fields.read(lines[1:-2]))


def _read_status_line(line: bytes) -> tuple[int, int, bytes]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadHead(f"its status line is {line[:60]!r}")
    minor, status, reason = match.groups(b"")
    known = int(minor), int(status), b"HTTP/1.1 %b %b\r\n" % (status, reason)
    if len(_status_lines) >= MAX_STATUS_LINES:
        _status_lines.clear()
    if len(line) <= 64:
        _status_lines[line] = known
    return known
