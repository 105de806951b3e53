"""Timers for what nearly always ends in time: setting and cancelling one costs two dictionary operations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

KINDS_SWEPT_AT: Final = 256


class Deadline:
    """One timer that was set."""

    __slots__ = ("_handle", "_line", "call", "when_s")

    def __init__(self, when_s: float, call: Callable[[], None], line: dict[Deadline, None]) -> None:
        self.when_s = when_s
        self.call = call
        self._line = line
        self._handle: asyncio.Handle | None = None

    def cancel(self) -> None:
        """Its call does not come any more; harmless when it has come."""
        self._line.pop(self, None)
        if self._handle is not None:
            self._handle.cancel()

    def due(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have it called by the loop: one that fails keeps no other from coming."""
        del self._line[self]
        self._handle = loop.call_soon(self.call)


class Deadlines:
    """Most tasks have the same few limits: timers of one length are due in the order in which they were set, so each
    length has a line of its own, and the loop has one timer for the first of them all. Used on the event loop."""

    def __init__(self) -> None:
        self._lines: dict[float, dict[Deadline, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_s = float("inf")
        self._swept_at = KINDS_SWEPT_AT

    def after(self, delay_s: float, call: Callable[[], None]) -> Deadline:
        """Call `call` once `delay_s` seconds have passed, if it is not cancelled before."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(delay_s)
        if line is None:
            if len(self._lines) >= self._swept_at:
                self._lines = {length: others for length, others in self._lines.items() if others}
                # Where many lengths are in use, not each new one looks at them all.
                self._swept_at = max(KINDS_SWEPT_AT, 2 * len(self._lines))
            line = self._lines[delay_s] = {}
        deadline = Deadline(loop.time() + delay_s, call, line)
        line[deadline] = None
        if deadline.when_s < self._next_s:
            self._set(loop, deadline.when_s)
        return deadline

    def _set(self, loop: asyncio.AbstractEventLoop, when_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_s = when_s
        self._timer = loop.call_at(when_s, self._pass)

    def _pass(self) -> None:
        loop = asyncio.get_running_loop()
        # The loop's clock may tick a little behind its timers.
        now_s = max(loop.time(), self._next_s)
        self._timer, self._next_s = None, float("inf")
        due: list[Deadline] = []
        for line in self._lines.values():
            for deadline in line:
                if deadline.when_s > now_s:
                    break
                due.append(deadline)
        for deadline in sorted(due, key=lambda passed: passed.when_s):
            deadline.due(loop)
        first = min((next(iter(line)).when_s for line in self._lines.values() if line), default=None)
        if first is not None:
            self._set(loop, first)
