"""Random hexadecimal digits for request ids and traces, drawn from the kernel many at a time."""

from __future__ import annotations

import os
from typing import Final

_DRAW_BYTES: Final = 24 * 256


class HexSource:
    """Gives every digit once. Each process has its own: a fork throws away the digits that it inherits."""

    __slots__ = ("_digits", "_pos")

    def __init__(self) -> None:
        self._digits = b""
        self._pos = 0
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._digits = b""
        self._pos = 0

    def take(self, count: int) -> bytes:
        """`count` digits, at most 1,024. (All of them zero, as a trace's id may not be: once in 2^64 for 16.)"""
        end = self._pos + count
        if end > len(self._digits):
            self._digits = os.urandom(_DRAW_BYTES).hex().encode()
            end = count
        self._pos = end
        return self._digits[end - count : end]
