"""Remembers what the engine reported about slots that ended: how, when, and whether memory had run out in them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from scheduler.launchers.docker_events import SlotEvent
from scheduler.launchers.endings import KILLED

REMEMBERED: Final = 1024
"""How many slots' events are remembered."""
_OOM_WINDOW_NS: Final = 5_000_000_000
"""How far apart, in nanoseconds, a kill for memory and a slot's end may be if one is the reason of the other."""


class _Death:
    """Times are the engine's, in nanoseconds; 0: not reported yet."""

    __slots__ = ("died_ns", "exit_code", "oom_ns")

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.died_ns = 0
        self.oom_ns = 0


class Deaths:
    """Remembers the events of slots. The engine reports a slot's end and its reason in either order."""

    def __init__(self) -> None:
        self._deaths: OrderedDict[str, _Death] = OrderedDict()

    def __contains__(self, slot_id: str) -> bool:
        return slot_id in self._deaths

    def forget(self, slot_id: str) -> None:
        self._deaths.pop(slot_id, None)

    def reported(self, event: SlotEvent) -> bool:
        """Remember the event; returns True if it is the slot's end."""
        death = self._deaths.setdefault(event.slot_id, _Death())
        while len(self._deaths) > REMEMBERED:
            self._deaths.popitem(last=False)
        if event.action == "oom":
            death.oom_ns = event.time_ns
            return False
        death.exit_code, death.died_ns = event.exit_code, event.time_ns
        return True

    def out_of_memory(self, slot_id: str) -> bool | None:
        """Return whether the slot's own init was killed for memory; None while that may still be reported."""
        death = self._deaths.get(slot_id)
        if death is None or not death.died_ns:
            return None
        if death.exit_code != KILLED:
            return False
        return abs(death.died_ns - death.oom_ns) < _OOM_WINDOW_NS if death.oom_ns else None
