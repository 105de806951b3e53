"""Evidence of the latest window, beside that of the whole stint: a canary that sickens late in a long hold must not be
saved by the good hours before. Pure."""

from __future__ import annotations

from typing import Final

from router.counting.tally import Tally, minus
from router.rollout.analysis import Window
from router.rollout.flow import window_s
from router.rollout.record import Progress

SETTLE_S: Final = 30.0
"""Maximum time after a change of weight in which latency is not judged: sets that take over start slots."""


def settle_s(progress: Progress) -> float:
    """How long latency is not judged after the weight changed: a tenth of the hold, within bounds."""
    plan = progress.plan
    return min(SETTLE_S, plan.steps[progress.step].hold_s / 10) if plan is not None else 0.0


class Lately:
    """Cuts a stint into windows, one after another, each a quarter of the hold. Held by the leader only; another leader
    begins a window of its own."""

    def __init__(self) -> None:
        self._stint = -1
        self._since_s = 0.0
        self._before = Tally(), Tally()
        self._cold = Tally(), Tally()

    def cut(self, progress: Progress, canary: Tally, control: Tally) -> Window | None:
        """Cut the window that runs now from the tallies of the whole stint; None in the first one, which is
        the whole."""
        if progress.stint != self._stint:
            # A leader that comes later cannot tell what belongs to which window: all before it is "before".
            self._stint = progress.stint
            self._since_s = progress.clock_s
            self._cold = Tally(), Tally()
            self._before = (canary.copy(), control.copy()) if progress.clock_s else (Tally(), Tally())
        elif progress.clock_s - self._since_s >= window_s(progress):
            self._since_s = progress.clock_s
            self._before = canary.copy(), control.copy()
        if not self._before[0].requests and not self._before[1].requests:
            return None
        number = max(1, int(progress.clock_s / window_s(progress)))
        return Window(minus(canary, self._before[0]), minus(control, self._before[1]), number)

    def warm(self, progress: Progress, canary: Tally, control: Tally) -> tuple[Tally, Tally]:
        """Cut the part after both sets had settled from the tallies of the whole stint. Call it after `cut`."""
        if progress.clock_s <= settle_s(progress):
            self._cold = canary.copy(), control.copy()
        return minus(canary, self._cold[0]), minus(control, self._cold[1])
