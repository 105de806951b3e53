"""Simple models of two peers' rules, as a yardstick: they judge the same made-up requests. Pure.

**Flagger** (its documentation's example): every minute the canary's share of answers that are no error must be 99 % at
least, and its 99th percentile of latency below a bound that the operators set, here twice control's usual one. Five
minutes that fail end the release; a step goes on after as many that passed as its hold has.

**Kayenta** (its default judge): a point every 6 s for error rate and 95th percentile of latency, of the canary and of a
control of the same size. At the end of a hold, with 50 points at least, each metric is compared by Mann and Whitney's
test: it fails where the interval (98 %) for the shift lies above a quarter of the estimated shift. One failed metric of
two is a score of 50, below the 75 that a release needs.

Neither sees a request before it has ended, excuses a step's first moments, or caps how much one caller counts.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

from ops.release_sim.bulk import OLD, Bulk
from router.counting.tally import Tally, minus
from router.rollout.states import Phase
from router.routing.plan import Plan

POINT_S: Final = 6.0
_Z_98: Final = 2.326
"""Two-sided 98 % of a normal distribution."""


class Peer(Bulk):
    """A made-up world in which a peer's rule moves the weight through the plan's steps."""

    capped = False

    def __init__(self, plan: Plan, *, seed: int = 0, rate: float = 20.0) -> None:
        super().__init__(plan, seed=seed, rate=rate, tick_s=POINT_S)
        self.phase = Phase.HOLDING
        self._step = -1
        self._held_s = 0.0
        self._before = Tally(), Tally()

    def start(self) -> None:
        self._next()

    def decide(self) -> None:
        """A point more."""
        canary, control = self.sides[self.plan.set].tally, self.sides[OLD].tally
        point = minus(canary, self._before[0]), minus(control, self._before[1])
        self._before = canary.copy(), control.copy()
        if self._weight_now == 10_000:
            # Neither compares anything once the canary is promoted.
            self.phase = Phase.DONE
            return
        self._held_s += POINT_S
        if not self.well(*point, over=self._held_s >= self.plan.steps[self._step].hold_s):
            self.phase = Phase.ABORTED

    def well(self, canary: Tally, control: Tally, *, over: bool) -> bool:
        """Judge with a point more; `over`: so is the hold. False: the release is over."""
        raise NotImplementedError

    def _next(self) -> None:
        self._step += 1
        self._held_s = 0.0
        self._weight_now = self.plan.steps[self._step].weight or 0
        self.weigh(self._weight_now)


class Flagger(Peer):
    MOST_FAILED: Final = 5
    LEAST_WELL: Final = 0.99
    MOST_P99_US: Final = 2 * 64_000.0
    """Control's usual 99th percentile is 64 ms (a median of 20, a spread of 0.5)."""
    MINUTE_S: Final = 60.0

    def __init__(self, plan: Plan, *, seed: int = 0, rate: float = 20.0) -> None:
        super().__init__(plan, seed=seed, rate=rate)
        self._minute: list[Tally] = []
        self._passed = self._failed = 0

    def well(self, canary: Tally, control: Tally, *, over: bool) -> bool:
        self._minute.append(canary)
        if len(self._minute) * POINT_S < self.MINUTE_S:
            return True
        errors = sum(point.error for point in self._minute)
        requests = sum(point.requests for point in self._minute)
        slowest = _joined(self._minute).quantile_us(0.99)
        self._minute = []
        if (
            not requests
            or slowest is None
            or 1 - errors / requests < self.LEAST_WELL
            or slowest > self.MOST_P99_US
        ):
            self._failed += 1
            return self._failed < self.MOST_FAILED
        self._passed += 1
        if self._passed * self.MINUTE_S >= self.plan.steps[self._step].hold_s:
            self._passed = 0
            self._next()
        return True


class Kayenta(Peer):
    FEWEST_POINTS: Final = 50
    TOLERANCE: Final = 0.25

    def __init__(self, plan: Plan, *, seed: int = 0, rate: float = 20.0) -> None:
        super().__init__(plan, seed=seed, rate=rate)
        self._points: list[tuple[float, float, float, float]] = []

    def well(self, canary: Tally, control: Tally, *, over: bool) -> bool:
        if canary.requests and control.requests:
            self._points.append((*_metrics(canary), *_metrics(self._alike(canary, control))))
        if not over or len(self._points) < self.FEWEST_POINTS:
            return True
        errors, slow, base_errors, base_slow = zip(*self._points, strict=True)
        self._points = []
        if self._higher(errors, base_errors) or self._higher(slow, base_slow):
            return False
        self._next()
        return True

    def _alike(self, canary: Tally, control: Tally) -> Tally:
        """As many of control's requests as the canary has."""
        part = min(1.0, canary.requests / control.requests)
        buckets = [bucket for bucket, count in control.latencies.items() for _ in range(count)]
        chosen = self.rng.sample(buckets, round(len(buckets) * part))
        error = sum(self.rng.random() < part for _ in range(control.error))
        counts: dict[int, int] = {}
        for bucket in chosen:
            counts[bucket] = counts.get(bucket, 0) + 1
        return Tally(ok=max(0, canary.requests - error), error=error, latencies=counts)

    def _higher(self, canary: tuple[float, ...], control: tuple[float, ...]) -> bool:
        """Mann and Whitney's test by the differences of all pairs (Hodges and Lehmann)."""
        shifts = sorted(mine - base for mine in canary for base in control)
        n, m = len(canary), len(control)
        first = int(n * m / 2 - _Z_98 * sqrt(n * m * (n + m + 1) / 12))
        estimate = shifts[len(shifts) // 2]
        return shifts[max(0, first)] > max(0.0, self.TOLERANCE * estimate)


def _metrics(tally: Tally) -> tuple[float, float]:
    return tally.error / max(1, tally.requests), tally.quantile_us(0.95) or 0.0


def _joined(tallies: list[Tally]) -> Tally:
    counts: dict[int, int] = {}
    for tally in tallies:
        for bucket, count in tally.latencies.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return Tally(latencies=counts)
