"""Holds back a short 503 problem until it is complete: it may say that the set took nothing."""

from __future__ import annotations

from typing import Final

from router.wire.answer_head import AnswerHead
from router.wire.framing import LengthBody
from router.wire.problems import refusal_name

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

    @property
    def refusal(self) -> str | None:
        """Return the problem's name if it says `executed: false`; None: it does not."""
        return refusal_name(self.body)


def held(head: AnswerHead, *, bodied: bool) -> HeldAnswer | None:
    """Hold an answer back; None: it is not a short 503 problem."""
    length = head.content_length
    if head.status == 503 and bodied and head.problem and length is not None and length <= HELD_ANSWER_BYTES:
        return HeldAnswer(head, length)
    return None
