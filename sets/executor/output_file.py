"""Output files that stay where they are until their task's results are kept: in a slot, or on another machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar


class Reader(Protocol):
    """The bytes of a file as they come."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""

    def close(self) -> None: ...


R = TypeVar("R", bound=Reader)


class OutputFile(Generic[R]):
    """An output file (`scheduler.source.Source`). One coroutine reads it at a time.

    `ask` asks for bytes of it: the first, and how many; it raises where that cannot be asked. `broke` makes the error
    of a reader that gave another number of bytes.
    """

    __slots__ = ("_ask", "_broke", "size_bytes")

    def __init__(
        self, size_bytes: int, ask: Callable[[int, int], R], broke: Callable[[R], Exception]
    ) -> None:
        self.size_bytes = size_bytes
        self._ask = ask
        self._broke = broke

    def fileno(self) -> None:
        return None

    async def pieces(self, first: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `Source.pieces`. Raises also what `ask` raises, and what `broke` makes."""
        left = self.size_bytes - first if length is None else length
        reader = self._ask(first, left)
        try:
            while left:
                piece = await reader.read()
                if not piece or len(piece) > left:
                    raise self._broke(reader)
                left -= len(piece)
                yield piece
        finally:
            reader.close()

    def close(self) -> None:
        """The files of a task are given back together, by `Ending.close_files`."""
