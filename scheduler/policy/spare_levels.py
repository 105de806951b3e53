"""Decides how many spare tasks a node starts, so that each is likely to stay. Pure.

In a full cell, room that has just become free is wanted again a moment later: a spare task that starts there only dies.
So a node keeps a level for each core that spare tasks may hold: the first, the second, and so on. When one gives way,
the level that is lost closes for a pause. The pause doubles each time that the level is lost, and halves when a task
ends while the level is held. High levels, which normal tasks often take back, are tried rarely; low ones nearly always.

No pause is longer than `PAUSE_MOST_S`, so each level is tried again: a spare task gets on wherever room stays for long
enough.
"""

from __future__ import annotations

from typing import Final

import msgspec

PAUSE_S: Final = 1.0
"""Shortest pause of a level, in seconds."""
PAUSE_MOST_S: Final = 60.0
"""Longest pause of a level, in seconds: how long spare tasks may leave a core idle that was always taken back."""
FORGET_S: Final = 3_600.0
"""How long, in seconds, after it opened a level remembers its last pause."""
LEVEL_PERCENT: Final = 100
"""The size of a level, in hundredths of a core."""


class Level(msgspec.Struct):
    """A core that spare tasks may hold from `opens_at` on, after a pause of `pause_s`; both in seconds."""

    pause_s: float
    opens_at: float


class Levels:
    """The levels of one node, which came into being when a spare task gave way there."""

    def __init__(self, cpu_percent: int) -> None:
        self._levels = [Level(PAUSE_S / 2, 0.0) for _ in range(_level(cpu_percent))]

    def closed_until(self, held_percent: int, more_percent: int, now: float) -> float | None:
        """When spare tasks that hold `held_percent` may hold `more_percent` on top; None: they may now."""
        opens_at = max(level.opens_at for level in self._between(held_percent, more_percent))
        return opens_at if opens_at > now else None

    def lost(self, held_percent: int, less_percent: int, now: float) -> None:
        """Spare tasks that held `held_percent` give `less_percent` of it to normal ones."""
        for level in self._between(held_percent - less_percent, less_percent):
            forgotten = now >= level.opens_at + FORGET_S
            level.pause_s = PAUSE_S if forgotten else min(PAUSE_MOST_S, 2 * level.pause_s)
            level.opens_at = now + level.pause_s

    def kept(self, held_percent: int) -> None:
        """A spare task ended by itself while they held `held_percent`."""
        for level in self._levels[: _level(held_percent)]:
            level.pause_s = max(PAUSE_S / 2, level.pause_s / 2)

    def _between(self, held_percent: int, more_percent: int) -> list[Level]:
        top = _level(held_percent + more_percent)
        return self._levels[min(_level(held_percent), top - 1) : top]


def _level(cpu_percent: int) -> int:
    return -(-cpu_percent // LEVEL_PERCENT)
