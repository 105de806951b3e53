"""When the next commit begins: at once on a set with little to do, a moment later on a busy one. Pure.

A commit costs nearly the same whether one task is in it or ten. On a busy set it waits until more of them have come;
those that are over by then need no commit of their own for their ends.
"""

from __future__ import annotations

from math import exp
from typing import Final

WINDOW_S: Final = 0.05
"""Seconds over which the rate of new tasks is averaged."""
TASKS_PER_COMMIT: Final = 6.0
"""New tasks that a commit of a busy set has."""
INTERVAL_MAX_S: Final = 0.005
"""Longest time, in seconds, between the beginnings of two commits. A set on which too few tasks come within it does not
wait."""


class Pace:
    """The times of a store's commits. Moments are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._recent = 0.0
        self._began = 0.0

    def began(self, new_tasks: int, now: float) -> None:
        """A commit begins, with so many new tasks."""
        self._recent = self._recent * exp((self._began - now) / WINDOW_S) + new_tasks
        self._began = now

    def wait_s(self, now: float) -> float:
        """How long the next commit, for which there is something to write now, waits."""
        rate_per_s = self._recent * exp((self._began - now) / WINDOW_S) / WINDOW_S
        if rate_per_s * INTERVAL_MAX_S < TASKS_PER_COMMIT:
            return 0.0
        return max(0.0, self._began + TASKS_PER_COMMIT / rate_per_s - now)
