"""Holds back a short answer until it is complete, because it may say that the set took nothing."""

from __future__ import annotations

from typing import Final

from router.dialects.contract import Dialect
from router.wire.answer_head import AnswerHead
from router.wire.framing import LengthBody

HELD_ANSWER_BYTES: Final = 16 * 1024
"""Longest body, in bytes, that is read whole; a longer one is relayed as it comes."""


class HeldAnswer:
    """`body` grows until `done`."""

    __slots__ = ("_reader", "body", "head")

    def __init__(self, head: AnswerHead, length: int) -> None:
        self.head = head
        self.body = bytearray()
        self._reader = LengthBody(length)

    def feed(self, buf: bytes | bytearray, view: memoryview, start: int, end: int) -> int:
        """Take `buf[start:end]`; returns where the answer ends in it. Raises `FramingError`."""
        pieces, pos = self._reader.feed(buf, view, start, end)
        for piece in pieces:
            self.body += piece
        return pos

    @property
    def done(self) -> bool:
        return self._reader.done


def held(head: AnswerHead, dialect: Dialect, *, bodied: bool) -> HeldAnswer | None:
    """Hold an answer back; None: it is too long, or cannot be a refusal."""
    length = head.content_length
    if not bodied or length is None or length > HELD_ANSWER_BYTES or not dialect.may_refuse(head):
        return None
    return HeldAnswer(head, length)
