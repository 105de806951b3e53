"""Output files that lie in a slot until their task's results are kept: the guest writes them into pipes of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from scheduler.errors import SlotLost
from sets.executor.pipes import PipeReader


class FileGuest(Protocol):
    """The part of a slot that its files use."""

    def read_file(self, task: int, number: int, first: int, length: int) -> PipeReader:
        """Have the guest write `length` bytes of the task's file, from byte `first` on. Raises `SlotLost`."""


class SlotFile:
    """An output file (`scheduler.source.Source`). One coroutine reads it at a time."""

    __slots__ = ("_guest", "_number", "_task", "size_bytes")

    def __init__(self, guest: FileGuest, task: int, number: int, size_bytes: int) -> None:
        self._guest = guest
        self._task = task
        self._number = number
        self.size_bytes = size_bytes

    def fileno(self) -> None:
        return None

    async def pieces(self, first: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `Source.pieces`. Raises `SlotLost`: the file ends early where its slot does."""
        left = self.size_bytes - first if length is None else length
        reader = self._guest.read_file(self._task, self._number, first, left)
        try:
            while left:
                piece = await reader.read()
                if not piece or len(piece) > left:
                    raise SlotLost("an output file broke off while it was read")
                left -= len(piece)
                yield piece
        finally:
            reader.close()

    def close(self) -> None:
        """The files of a task are given back together, by `Ending.close_files`."""
