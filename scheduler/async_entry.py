"""An async task that waits or runs, as its side sees it."""

from __future__ import annotations

import asyncio
from typing import Any

from scheduler.image import Image
from scheduler.roster import Entry, Side
from scheduler.task import Reason, Task


class AsyncEntry(Entry):
    """An async task that waits or runs. It may do so while it is being written, and be refused then."""

    __slots__ = ("_written", "ending", "gives_way", "refused")

    def __init__(self, task: Task, image: Image, side: Side[Any]) -> None:
        super().__init__(task, image, side)
        # Its running attempt is being killed, so that a normal task has its room.
        self.gives_way = False
        # Its outcome is decided and being stored.
        self.ending = False
        # It could not be written, so nothing of it is stored.
        self.refused = False
        self._written: asyncio.Future[None] | None = None

    def is_being_written(self) -> None:
        """Its first write is under way: `was_written` or `refuse` follows."""
        self._written = asyncio.get_running_loop().create_future()

    @property
    def being_written(self) -> bool:
        return self._written is not None

    def was_written(self) -> None:
        """The task is on disk."""
        written, self._written = self._written, None
        if written is not None:
            written.set_result(None)

    def refuse(self) -> None:
        """The task could not be written."""
        self.refused = True
        self.cancel = Reason.CANCELLED
        self.was_written()

    async def is_accepted(self) -> bool:
        """Wait until the task is on disk, or refused: then return False."""
        if self._written is not None:
            await asyncio.shield(self._written)
        return not self.refused
