"""Reads heads of answers that differ only in their values by one regular expression each. Pure.

A set's answers to requests of one kind have the same header names in the same order; ids, times and lengths change.
Read line by line such a head costs 3 µs, by its shape 1. A head that fits no shape is read line by line, as is every
head that a shape is made from: a shape takes only what that way would take, and gives the same result.
"""

from __future__ import annotations

import re
from typing import Final

from router.wire.answer_head import AnswerHead, parse_answer
from router.wire.fields import PASS, Field
from router.wire.head import LENGTH, MAX_LENGTH_DIGITS

MAX_SHAPES: Final = 8
LEARN_AFTER: Final = 16
MAX_LEARN_AFTER: Final = 4096
"""Number of heads that fit no shape, after which a shape is made from the last one; it doubles each time. Making a
shape takes as long as reading some hundred heads, which must not be lost on a set whose answers are all different."""
MAX_SHAPED_BYTES: Final = 1024

_WORDS: Final = rb"[!-~]++(?: [!-~]++)*+"
_LENGTH_LINE: Final = re.compile(rb"([!#$%%&'*+\-.^_`|~0-9A-Za-z]+: )[0-9]{1,%d}" % MAX_LENGTH_DIGITS)


class ShapedHead(AnswerHead):
    """A head that was read by its shape; its fields are separated when all of them are first asked for."""

    def __init__(
        self, raw: bytes, status: int, status_line: bytes, content_length: int, opening: bytes
    ) -> None:
        self._raw = raw
        self._opening = opening
        self.minor = 1
        self.keep_alive = True
        self.status = status
        self.status_line = status_line
        self.content_length = content_length

    @property
    def opening(self) -> bytes:
        return self._opening

    def get(self, name: bytes) -> bytes | None:
        # Each line of a shape is a name, a colon and a value: looking for one costs a tenth of parting all.
        raw = self._raw
        at = raw.lower().find(b"\r\n%b:" % name)
        if at < 0:
            return None
        at += len(name) + 3
        return raw[at : raw.index(b"\r\n", at)].strip(b" \t")

    def __getattr__(self, name: str) -> list[Field] | list[bytes]:
        if name not in ("fields", "lines"):
            raise AttributeError(name)
        head = parse_answer(self._raw)
        self.fields, self.lines = head.fields, head.lines
        return self.fields if name == "fields" else self.lines


class Shapes:
    """The shapes of recent answers; a few, as a set answers in few ways."""

    def __init__(self) -> None:
        self._shapes: list[tuple[re.Pattern[bytes], int, bytes]] = []
        self._unfit = 0
        self._learn_after = LEARN_AFTER

    def read(self, buf: bytes | bytearray, end: int) -> tuple[ShapedHead, int] | None:
        """The head at the beginning of `buf[:end]` and where it ends; None: read it line by line."""
        for pattern, status, status_line in self._shapes:
            match = pattern.match(buf, 0, end)
            if match is not None:
                before, digits, after = match.groups()
                length = int(digits)
                opening = b"%b%bContent-Length: %d\r\nX-Request-Id: " % (before, after, length)
                return ShapedHead(bytes(match[0]), status, status_line, length, opening), match.end()
        return None

    def learn(self, raw: bytes, head: AnswerHead) -> None:
        """Make a shape from a head that was read line by line, if it is its turn and the head has one."""
        self._unfit += 1
        if self._unfit < self._learn_after:
            return
        self._unfit = 0
        self._learn_after = min(2 * self._learn_after, MAX_LEARN_AFTER)
        shape = _shape_of(raw, head)
        if shape is not None:
            # The oldest shape is dropped.
            self._shapes = [(shape, head.status, head.status_line), *self._shapes[: MAX_SHAPES - 1]]


def _shape_of(raw: bytes, head: AnswerHead) -> re.Pattern[bytes] | None:
    """Make the shape of a head; None if it has more than a Content-Length and header lines that are passed on
    unchanged."""
    lines = raw.split(b"\r\n")[:-2]
    if (
        len(raw) > MAX_SHAPED_BYTES
        or head.minor != 1
        or head.status < 200
        or head.status in (204, 304)
        or head.content_length is None
        or lines[0] + b"\r\n" != head.status_line
    ):
        return None
    parts = [rb"(" + re.escape(head.status_line)]
    for line, (kind, _, value, forward) in zip(lines[1:], head.fields, strict=True):
        if kind == LENGTH:
            match = _LENGTH_LINE.fullmatch(line)
            if match is None:
                return None
            parts.append(rb")%b([0-9]{1,%d})\r\n(" % (re.escape(match[1]), MAX_LENGTH_DIGITS))
        elif kind == PASS and line + b"\r\n" == forward and re.fullmatch(_WORDS, value):
            name = line[: len(line) - len(value)]
            parts.append(re.escape(name) + _WORDS + rb"\r\n")
        else:
            return None
    return re.compile(b"".join((*parts, rb")\r\n")))
