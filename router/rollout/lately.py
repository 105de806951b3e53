"""What was seen lately, beside what was seen in the whole stint: a canary that sickens late in a long hold must not be
saved by the good hours before. Pure."""

from __future__ import annotations

from router.counting.tally import Tally, minus
from router.rollout.analysis import Window
from router.rollout.flow import window_s
from router.rollout.record import Progress


class Lately:
    """Cuts a stint into windows, one after another, each a quarter of the hold. Held by the leader only; another leader
    begins a window of its own."""

    def __init__(self) -> None:
        self._stint = -1
        self._since_s = 0.0
        self._before = Tally(), Tally()

    def cut(self, progress: Progress, canary: Tally, control: Tally) -> Window | None:
        """Of the tallies of the whole stint, what belongs to the window that runs now; None in the first one, which is
        the whole."""
        if progress.stint != self._stint:
            # A leader that comes later cannot tell what belongs to which window: all before it is "before".
            self._stint = progress.stint
            self._since_s = progress.clock_s
            self._before = (canary.copy(), control.copy()) if progress.clock_s else (Tally(), Tally())
        elif progress.clock_s - self._since_s >= window_s(progress):
            self._since_s = progress.clock_s
            self._before = canary.copy(), control.copy()
        if not self._before[0].requests and not self._before[1].requests:
            return None
        number = max(1, int(progress.clock_s / window_s(progress)))
        return Window(minus(canary, self._before[0]), minus(control, self._before[1]), number)
