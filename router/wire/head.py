"""What the heads of requests and of answers have in common: their fields, and how they frame a body. Pure.

Framing is what smuggling works on, so it is read in one place, and more strictly than RFC 9112 asks.
"""

from __future__ import annotations

import re

from .fields import DROP, PASS, Field

LENGTH, CODING, CONNECTION, FIRST_FREE = range(2, 6)
"""Kinds of fields that every head knows; a kind of head numbers its own from FIRST_FREE."""

KINDS = {
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"trailer": DROP,
    b"x-router": DROP,
}

_LENGTH = re.compile(rb"[0-9]{1,18}")


class BadHead(Exception):
    """A head is not valid HTTP/1.1; the message says what is wrong."""


class Head:
    """A head's fields. `minor` is 0 for HTTP/1.0; `keep_alive`: as far as the head says, the connection may be
    used again."""

    # Defaults in the class, not slots: most heads leave most of them as they are.
    content_length: int | None = None
    chunked = False
    not_nominable: frozenset[bytes] = frozenset()
    """Fields that a Connection header may not take away."""
    _connection = b""

    def __init__(self, minor: int, fields: list[Field]) -> None:
        self.minor = minor
        self.fields = fields
        self.keep_alive = minor == 1
        self.lines: list[bytes] = [field[3] for field in fields if not field[0]]
        """The header lines to pass on, without those that the router writes itself."""
        for field in fields:
            if field[0] > DROP:
                self._note(field[0], field[2])
        if self.chunked and (self.content_length is not None or minor == 0):
            raise BadHead(
                "HTTP/1.0 knows no Transfer-Encoding"
                if minor == 0
                else "Content-Length and Transfer-Encoding exclude each other"
            )
        if self._connection:
            self._obey({token.strip() for token in self._connection.split(b",")})

    def get(self, name: bytes) -> bytes | None:
        """The value of the first header of that lower-case name."""
        for field in self.fields:
            if field[1] == name:
                return field[2]
        return None

    def _note(self, kind: int, value: bytes) -> None:
        """Take notice of a field that means something to a proxy. Raises `BadHead`."""
        if kind == LENGTH:
            if self.content_length is not None or not _LENGTH.fullmatch(value):
                raise BadHead("Content-Length must be one number, once")
            self.content_length = int(value)
        elif kind == CODING:
            if self.chunked or value.lower() != b"chunked":
                raise BadHead("Transfer-Encoding must be exactly 'chunked', once")
            self.chunked = True
        elif kind == CONNECTION:
            self._connection += b"," + value.lower()

    def _obey(self, connection: set[bytes]) -> None:
        """Follow the Connection header's lower-case tokens; the fields that they name stay here."""
        if b"close" in connection:
            self.keep_alive = False
        elif self.minor == 0:
            self.keep_alive = b"keep-alive" in connection
        named = connection - {b"close", b"keep-alive", b""} - self.not_nominable
        if named:
            self.lines = [field[3] for field in self.fields if field[0] == PASS and field[1] not in named]
