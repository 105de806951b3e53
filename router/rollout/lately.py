"""Cuts the evidence of a stint by time: into slices of some seconds, and windows of some minutes. Pure.

The slices tell how latency clumps, and let the e-processes bet on what came after. The windows see to it that a canary
which sickens late in a long hold is not saved by the good hours before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from router.counting.tally import Tally, minus
from router.rollout.clumps import Clumps, RateClumps
from router.rollout.eprocess import Counts, EProcess
from router.rollout.flow import window_s
from router.rollout.look import Look, Proof, Window
from router.rollout.patience import errors, failed_tasks, patience_us
from router.rollout.record import Progress
from router.routing.plan import CheckName, Plan

SETTLE_S: Final = 30.0
"""Maximum time after a change of weight in which latency is not judged: sets that take over start slots."""
SLICE_S: Final = 15.0


def settle_s(progress: Progress) -> float:
    """How long latency is not judged after the weight changed: a tenth of the hold, within bounds."""
    plan = progress.plan
    return min(SETTLE_S, plan.steps[progress.step].hold_s / 10) if plan is not None else 0.0


class Lately:
    """Cuts the stints of a rollout, one after another; call `look` with all that was seen of the present one.

    Held by the leader only: another leader begins a slice and a window of its own."""

    def __init__(self) -> None:
        self._run = -1
        self._stint = -1
        self._clumps = Clumps()
        self._margins: dict[CheckName, float] = {}
        self._whole: dict[CheckName, EProcess] = {}
        """Evidence of the stint, by check."""
        self._bursts: dict[CheckName, RateClumps] = {}
        self._recent: dict[CheckName, EProcess] = {}
        """Evidence of the window; the same as of the stint in its first one."""
        self._slice = self._window = self._settled = (Tally(), Tally())
        """Tallies as they were when the slice and the window began, and when both sets had settled."""
        self._slice_s = self._window_s = self._settled_s = 0.0

    def look(self, progress: Progress, canary: Tally, control: Tally) -> Look:
        """Cut where it is time, and say what the pieces tell."""
        plan = progress.plan
        assert plan is not None
        now_s, sides = progress.clock_s, (canary, control)
        if progress.run != self._run:
            self._run, self._stint = progress.run, -1
            self._clumps = Clumps()
            self._margins = _margins(plan)
            self._whole = {name: EProcess(margin) for name, margin in self._margins.items()}
            self._bursts = {name: RateClumps() for name in self._margins}
        if progress.stint != self._stint:
            self._begin(progress, sides)
        if now_s <= settle_s(progress):
            self._settled = _copies(sides)
            self._settled_s = now_s
        window_over = now_s - self._window_s >= window_s(progress)
        if window_over or now_s - self._slice_s >= SLICE_S:
            self._cut(now_s, sides)
        if window_over:
            self._window = _copies(sides)
            self._window_s = now_s
            self._recent = self._empty_evidence()
        counts = _counts(sides, self._slice, patience_us(control))
        judged_per_s = canary.judged / max(1.0, now_s)
        bursts = {name: 1.0 + judged_per_s * clumps.clump_s for name, clumps in self._bursts.items()}
        window = None
        if self._window[0].requests or self._window[1].requests:
            number = max(1, int(now_s / window_s(progress)))
            window = Window(*_since(sides, self._window), number, _proof(self._recent, counts, bursts))
        warm = _since(sides, self._settled)
        per_s = 1.0 / max(1.0, now_s - self._settled_s)
        clumped = [1.0 + each.measured * per_s * self._clumps.clump_s for each in warm]
        return Look(window, warm, (clumped[0], clumped[1]), _proof(self._whole, counts, bursts), bursts)

    def _begin(self, progress: Progress, sides: _Sides) -> None:
        """Begin a stint. If another worker led its first part, all of that part counts as before the first window."""
        self._stint = progress.stint
        self._clumps = Clumps(self._clumps.scatter)
        self._slice = self._settled = self._window = (Tally(), Tally())
        self._settled_s = 0.0
        self._slice_s = self._window_s = progress.clock_s
        self._whole = self._empty_evidence()
        self._recent = self._whole
        if progress.clock_s:
            self._window = _copies(sides)
            self._cut(progress.clock_s, sides)
            self._recent = self._empty_evidence()

    def _cut(self, now_s: float, sides: _Sides) -> None:
        """End the slice that runs. A request that is open may end in a later slice, and counts there."""
        for name, counts in _counts(_ended(sides), self._slice, patience_us(sides[1])).items():
            if name not in self._margins:
                continue
            self._whole[name].close(counts)
            self._bursts[name].add(counts.base_hits, counts.base_of)
            if self._recent is not self._whole:
                self._recent[name].close(counts)
        settled = self._settled if self._settled_s > self._slice_s else self._slice
        self._clumps.add(*(side.latencies for side in _since(sides, settled)))
        self._slice = _ended(_copies(sides))
        self._slice_s = now_s

    def _empty_evidence(self) -> dict[CheckName, EProcess]:
        """Empty evidence, to collect from now on; its first guess of control's rate is the rate until now."""
        return {name: EProcess(margin, self._whole[name].known) for name, margin in self._margins.items()}


_Sides = tuple[Tally, Tally]


def _copies(sides: _Sides) -> _Sides:
    return sides[0].copy(), sides[1].copy()


def _ended(sides: _Sides) -> _Sides:
    """Without the requests that are open: these end later."""
    return msgspec.structs.replace(sides[0], open={}), msgspec.structs.replace(sides[1], open={})


def _since(sides: _Sides, before: _Sides) -> _Sides:
    return minus(sides[0], before[0]), minus(sides[1], before[1])


def _margins(plan: Plan) -> dict[CheckName, float]:
    """The checks that compare rates of the two cohorts, and how much more each allows."""
    limits = plan.abort_when
    margins = {
        CheckName.ERRORS: limits.error_rate_over_baseline,
        CheckName.TASKS: limits.task_failures_over_baseline,
    }
    return {name: margin for name, margin in margins.items() if margin is not None}


def _counts(sides: _Sides, before: _Sides, after_us: float) -> dict[CheckName, Counts]:
    """Counts that `sides` have beyond `before`."""
    return {
        CheckName.ERRORS: _more(*(errors(each, after_us) for each in (*sides, *before))),
        CheckName.TASKS: _more(*map(failed_tasks, (*sides, *before))),
    }


def _more(*counts: tuple[int, int]) -> Counts:
    """Never below 0, even if a worker's counts were lost."""
    (hits, of), (base_hits, base_of), old, base_old = counts
    of, base_of = max(0, of - old[1]), max(0, base_of - base_old[1])
    return Counts(min(of, max(0, hits - old[0])), of, min(base_of, max(0, base_hits - base_old[0])), base_of)


def _proof(
    processes: Mapping[CheckName, EProcess],
    counts: Mapping[CheckName, Counts],
    bursts: Mapping[CheckName, float],
) -> Proof:
    return {name: process.evidence(counts[name], clump=bursts[name]) for name, process in processes.items()}
