"""Says how many cores the normal tasks of a cell want, by the CPU features that they need: a figure for an autoscaler.
Pure.

A figure rises at once and falls once nothing as high was seen for five minutes: machines start slowly, and they would
come and go with each burst otherwise.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from scheduler.policy.books import Books
from scheduler.policy.pool import Pool

DRAINED_IN_S: Final = 60.0
"""Time in which tasks that wait should have begun, in seconds: short ones need no core each."""
WINDOW_S: Final = 30.0
"""Length of the windows of which the highest figure is remembered, in seconds."""
WINDOWS: Final = 10
"""How many windows a figure takes to fall."""
CLASSES_MOST: Final = 50
"""How many combinations of CPU features have a figure of their own; accounts choose them."""
ANY: Final = ""
"""The class of tasks that every machine can run."""
OTHERS: Final = "others"
"""The class of tasks whose combination of CPU features has no figure of its own."""


class CoresWanted:
    """Remembers the figures of the last five minutes. Times are the cell's clock, in seconds."""

    def __init__(self) -> None:
        # By class, the highest figure of each window by its number, the oldest first.
        self._highest: dict[str, dict[int, float]] = {ANY: {}}

    def look(self, books: Books, now: float) -> dict[str, float]:
        """Return the cores that are wanted by class: its CPU features, sorted, with commas between them."""
        wanted: dict[str, float] = {}
        for pool in books.pools.values():
            percent = _wanted_percent(pool, books)
            if percent:
                name = ",".join(pool.key.cpu_features)
                wanted[name] = wanted.get(name, 0.0) + percent / 100
        window = int(now / WINDOW_S)
        for highest in self._highest.values():
            for old in [number for number in highest if number <= window - WINDOWS]:
                del highest[old]
        self._make_room(wanted)
        for name, cores in wanted.items():
            highest = self._highest.setdefault(name, {})
            highest[window] = max(cores, highest.get(window, 0.0))
        return {name: max(highest.values(), default=0.0) for name, highest in self._highest.items()}

    def _make_room(self, wanted: dict[str, float]) -> None:
        """Forget classes that nobody wants, where others need their room; those that find none are counted together."""
        new = [name for name in wanted if name not in self._highest]
        unused = [
            name for name, highest in self._highest.items() if name and not highest and name not in wanted
        ]
        for name in unused[: max(0, len(self._highest) + len(new) - CLASSES_MOST)]:
            del self._highest[name]
        for name in new[max(0, CLASSES_MOST - len(self._highest)) :]:
            wanted[OTHERS] = wanted.get(OTHERS, 0.0) + wanted.pop(name)


def _wanted_percent(pool: Pool, books: Books) -> int:
    """Hundredths of a core that the pool's tasks want: those that run, and enough to begin those that wait."""
    if pool.is_spare:
        return 0
    waiting = len(pool.waiting)
    if pool.failures and not pool.running:
        # More machines wouldn't help slots that cannot start.
        waiting = 0
    if books.caps.fill(pool.key):
        # Its account may have no other slot, however many machines there are.
        waiting = min(waiting, len(pool.idle) + len(pool.starting))
    task_s = pool.account.task_s
    if task_s:
        waiting = min(waiting, ceil(waiting * task_s / DRAINED_IN_S))
    return (len(pool.running) + waiting) * pool.charge_percent
