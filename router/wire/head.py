"""The common part of requests' and answers' heads: fields, and how they frame a body. Pure.

Framing is what smuggling works on, so it is read in one place, and more strictly than RFC 9112 asks.
"""

from __future__ import annotations

from typing import Final

from router.wire.fields import DROP, PASS, BadHead, Field

LENGTH, CODING, CONNECTION, FIRST_FREE = range(2, 6)
"""Kinds of fields that every head knows; a kind of head numbers its own from FIRST_FREE."""

KINDS: Final = {
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

MAX_LENGTH_DIGITS: Final = 18


class Head:
    """A head's fields. `minor` is 0 for HTTP/1.0. `keep_alive`: according to the head, the connection may be used
    again. `lines`: the header lines to pass on, without those that the router writes itself."""

    # Defaults in the class, not slots: most heads leave most of them as they are.
    content_length: int | None = None
    chunked = False
    not_nominable: frozenset[bytes] = frozenset()
    """Fields that a Connection header may not take away."""
    _values: dict[bytes, bytes] | None = None

    def __init__(self, minor: int, fields: list[Field]) -> None:
        self.minor = minor
        self.fields = fields
        self.keep_alive = minor == 1
        self.lines: list[bytes] = []
        connection = b""
        for kind, _, value, line in fields:
            if kind == PASS:
                self.lines.append(line)
            elif kind == LENGTH:
                if self.content_length is not None or not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
                    raise BadHead("Content-Length must be one number, once")
                self.content_length = int(value)
            elif kind == CONNECTION:
                connection += b"," + value.lower()
            elif kind == CODING:
                if self.chunked or value.lower() != b"chunked":
                    raise BadHead("Transfer-Encoding must be exactly 'chunked', once")
                self.chunked = True
            elif kind != DROP:
                self._note(kind, value)
        if self.chunked and (self.content_length is not None or minor == 0):
            raise BadHead(
                "HTTP/1.0 knows no Transfer-Encoding"
                if minor == 0
                else "Content-Length and Transfer-Encoding exclude each other"
            )
        if connection and (connection != b",keep-alive" or minor == 0):
            self._obey({token.strip() for token in connection.split(b",")})

    def get(self, name: bytes) -> bytes | None:
        """The value of the first header of that lower-case name."""
        values = self._values
        if values is None:
            values = self._values = {field[1]: field[2] for field in reversed(self.fields)}
        return values.get(name)

    def _note(self, kind: int, value: bytes) -> None:
        """Interpret a field that this kind of head knows. Raises `BadHead`."""

    def _obey(self, connection: set[bytes]) -> None:
        """Follow the Connection header's lower-case tokens; the fields that they name stay here."""
        if b"close" in connection:
            self.keep_alive = False
        elif self.minor == 0:
            self.keep_alive = b"keep-alive" in connection
        named = connection - {b"close", b"keep-alive", b""} - self.not_nominable
        if named:
            self.lines = [field[3] for field in self.fields if field[0] == PASS and field[1] not in named]
