"""The part of a request's body that was sent, kept while it is short enough to be sent again."""

from __future__ import annotations

from collections.abc import Sequence

from router.wire.stream import Piece


class Replay:
    """The beginning of a body, at most `max_bytes` of it. `whole`: everything that was sent is kept."""

    __slots__ = ("_bytes", "_max_bytes", "pieces", "whole")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self.pieces: list[Piece] = []
        self.whole = True

    def add(self, pieces: Sequence[Piece]) -> None:
        """Keep a part that is sent now; it is copied, as it may lie in a buffer that others use next."""
        if not self.whole:
            return
        for piece in pieces:
            self._bytes += len(piece)
        if self._bytes > self._max_bytes:
            self.whole = False
            self.pieces.clear()
            return
        for piece in pieces:
            self.pieces.append(bytes(piece))
