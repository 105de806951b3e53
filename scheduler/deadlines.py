"""Time limits on the event loop, for what nearly always ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from scheduler.policy.timers import Timer, Timers

Deadline = Timer[Callable[[], None]]
"""A time limit that was set; `cancel` takes it back."""


class Deadlines:
    """The loop has one timer, for the first of all deadlines. Used on the event loop."""

    def __init__(self) -> None:
        self._timers: Timers[Callable[[], None]] = Timers()
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at = float("inf")

    def after(self, delay_s: float, call: Callable[[], None]) -> Deadline:
        """Call `call` once `delay_s` seconds have passed, if it is not cancelled before."""
        loop = asyncio.get_running_loop()
        deadline = self._timers.set(delay_s, loop.time(), call)
        if deadline.at < self._handle_at:
            self._set(loop, deadline.at)
        return deadline

    def _set(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle_at = at
        self._handle = loop.call_at(at, self._pass)

    def _pass(self) -> None:
        loop = asyncio.get_running_loop()
        # The loop's clock may tick a little behind its timers.
        now = max(loop.time(), self._handle_at)
        self._handle, self._handle_at = None, float("inf")
        for deadline in self._timers.due(now):
            # By the loop: one that fails keeps no other from coming.
            loop.call_soon(_call, deadline)
        if self._timers.next_at < float("inf"):
            self._set(loop, self._timers.next_at)


def _call(deadline: Deadline) -> None:
    # One due in the same moment may have cancelled it.
    if not deadline.cancelled:
        deadline.what()
