"""Decides how many slots a fresh pool keeps ready: as many as tasks arrive while one starts."""

from __future__ import annotations

import math
from typing import Final

SMOOTHING: Final = 0.2
"""Weight of the newest observation in the averages."""
SAFETY: Final = 2.0
"""Arrivals come in bunches: this many times the average is kept ready."""
FIRST_START_S: Final = 0.3
"""Assumed duration of a start, in seconds, until one was measured."""


class Ahead:
    """Learns how often a pool's tasks arrive and how long its slots take to start. Times are seconds."""

    __slots__ = ("_gap_s", "_last_at", "_start_s", "_starts")

    def __init__(self) -> None:
        self._last_at: float | None = None
        self._gap_s: float | None = None
        self._start_s = FIRST_START_S
        self._starts: dict[str, float] = {}

    def arrived(self, now: float) -> None:
        """A task of the pool arrived."""
        if self._last_at is not None:
            gap_s = max(now - self._last_at, 1e-4)
            before = self._gap_s
            self._gap_s = gap_s if before is None else before + SMOOTHING * (gap_s - before)
        self._last_at = now

    def starting(self, slot_id: str, now: float) -> None:
        self._starts[slot_id] = now

    def started(self, slot_id: str, now: float) -> None:
        """A slot said hello."""
        began = self._starts.pop(slot_id, None)
        if began is not None:
            self._start_s += SMOOTHING * (now - began - self._start_s)

    def gone(self, slot_id: str) -> None:
        self._starts.pop(slot_id, None)

    def until(self, keep_s: float) -> float:
        """When slots are no longer kept ready, if no task arrives before; 0 where none has arrived yet."""
        return 0.0 if self._last_at is None else self._last_at + keep_s

    def wanted(self, now: float, keep_s: float, most: int) -> int:
        """Slots to have ready: none before the first task and `keep_s` after the last, else from 1 to `most`."""
        if not most or now >= self.until(keep_s):
            return 0
        if self._gap_s is None:
            return 1
        assert self._last_at is not None
        # Silence since the last arrival says that the rate has fallen.
        gap_s = max(self._gap_s, now - self._last_at)
        return max(1, min(most, math.ceil(SAFETY * self._start_s / gap_s)))
