"""Times at which something is due. Pure: the caller has the clock, and asks at `next_at` what is due."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

LENGTHS_SWEPT_AT: Final = 256
"""How many lengths are kept before those without a timer are looked for."""

T = TypeVar("T")


class Timer(Generic[T]):
    """One time, `at`, in seconds on the caller's clock; `what` is due then."""

    __slots__ = ("_line", "at", "cancelled", "what")

    def __init__(self, at: float, what: T, line: dict[Timer[T], None]) -> None:
        self.at = at
        self.what = what
        self.cancelled = False
        self._line = line

    def cancel(self) -> None:
        """Cancel it; harmless if it was due already."""
        self.cancelled = True
        self._line.pop(self, None)


class Timers(Generic[T]):
    """Sets and cancels timers. Most have one of a few lengths, and nearly all are cancelled: each costs two dictionary
    operations.

    Timers of one length are due in the order in which they were set, so each length has its own line. `next_at` is
    never later than the first of all; it may be earlier, if that one was cancelled.
    """

    def __init__(self) -> None:
        self.next_at = float("inf")
        self._lines: dict[float, dict[Timer[T], None]] = {}
        self._swept_at = LENGTHS_SWEPT_AT

    def set(self, delay_s: float, now: float, what: T) -> Timer[T]:
        """`what` is due `delay_s` seconds after `now`."""
        line = self._lines.get(delay_s)
        if line is None:
            if len(self._lines) >= self._swept_at:
                self._lines = {length: others for length, others in self._lines.items() if others}
                # If many lengths are in use, not every new one looks at them all.
                self._swept_at = max(LENGTHS_SWEPT_AT, 2 * len(self._lines))
            line = self._lines[delay_s] = {}
        at = now + delay_s
        timer = Timer(at, what, line)
        line[timer] = None
        if at < self.next_at:
            self.next_at = at
        return timer

    def due(self, now: float) -> list[Timer[T]]:
        """Take out all whose time has come, the earliest first."""
        found: list[Timer[T]] = []
        next_at = float("inf")
        for line in self._lines.values():
            for timer in line:
                if timer.at > now:
                    next_at = min(next_at, timer.at)
                    break
                found.append(timer)
        for timer in found:
            del timer._line[timer]
        self.next_at = next_at
        found.sort(key=_at)
        return found


def _at(timer: Timer[T]) -> float:
    return timer.at
