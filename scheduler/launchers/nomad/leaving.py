"""The slots of a launcher that are to go: which of them may still be there, and how the latest ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from scheduler.launchers.nomad.words import Kind

_ENDS_KEPT: Final = 1024
"""How many of the latest ends are remembered. Their tasks ask within seconds."""


class Leaving:
    """A slot is here from `add` until the cluster confirms that it has ended. Used on the event loop."""

    def __init__(self) -> None:
        self._slots: dict[str, asyncio.Future[None]] = {}
        self._ends: OrderedDict[str, Kind] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, slot_id: str) -> bool:
        return slot_id in self._slots

    @property
    def ids(self) -> tuple[str, ...]:
        """The slots that may still be there."""
        return tuple(self._slots)

    def add(self, slot_id: str) -> None:
        """The slot is to go."""
        self._slots[slot_id] = asyncio.get_running_loop().create_future()

    def gone(self, slot_id: str) -> None:
        """Nothing of the slot is left; unknown ids are fine."""
        waited = self._slots.pop(slot_id, None)
        if waited is not None and not waited.done():
            waited.set_result(None)

    def ended(self, slot_id: str, how: Kind) -> None:
        """The cluster says how a slot ended, one that is to go or another."""
        self.gone(slot_id)
        self._ends[slot_id] = how
        while len(self._ends) > _ENDS_KEPT:
            self._ends.popitem(last=False)

    def how(self, slot_id: str) -> Kind | None:
        """How the slot ended; None where the cluster has not said so, or long ago."""
        return self._ends.get(slot_id)

    async def until_gone(self, timeout_s: float) -> None:
        """Return once nothing of these slots is left, or after `timeout_s`."""
        if self._slots:
            await asyncio.wait(list(self._slots.values()), timeout=timeout_s)
