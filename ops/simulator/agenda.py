"""Virtual time: what is due when, without waiting for it. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Agenda:
    """Holds what is due, and calls it in its order; `now` is the time, in seconds from the start.

    What is due at the same time is called in the order in which it was noted.
    """

    __slots__ = ("_due", "_serial", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._serial = 0

    def at(self, when_s: float, call: Callable[[Any], object], what: Any = None) -> None:
        """Note that `call(what)` is due at that time."""
        self._serial = serial = self._serial + 1
        heapq.heappush(self._due, (when_s, serial, call, what))

    def run(self, until_s: float = float("inf")) -> None:
        """Let time pass until then, or until nothing is due any more."""
        due, pop = self._due, heapq.heappop
        while due and due[0][0] <= until_s:
            self.now, _, call, what = pop(due)
            call(what)
        if until_s < float("inf"):
            self.now = until_s
