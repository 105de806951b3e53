"""The robust comparison of latency: an always-valid interval for the ratio of two 95th percentiles. Pure.

**What.** If t is the canary's true 95th percentile, each of its latencies lies below t with probability 0.95:
so the number below t is a stream of yes-or-no outcomes of a known rate, with a martingale as in rates.py (here
a beta mixture around 0.95). Likewise for control and its percentile. Both percentiles are unknown, so all pairs
for which the product of the martingales stays below 1/α remain possible; the interval is the range of their
ratios. The latencies themselves come as counts in buckets 2.2 % wide: within a bucket the smaller, more
forgiving martingale counts, so the interval is valid for what was bucketed, not just for its approximation.

**Why this one.** Only ranks count: one answer of ten minutes moves nothing, and no shape is assumed (task
durations of several images are lumps, not a bell). It speaks of the very thing that operators limit, the
95th percentile, with an interval, where Mann-Whitney's U speaks of the odds that one is slower. It may be looked
at any time, as the rates' test, where a bootstrap or an order-statistic interval of fixed size errs more with
every look. And it needs the bucket counts alone, so that workers and restarts add up. The price is data:
some hundreds of requests a side before 25 % can be told (power in tests/router/rollout/test_tail.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, inf, lgamma, log
from typing import Final

from router.counting.tally import BUCKETS_PER_OCTAVE, LAST_BUCKET
from router.rollout.rates import Interval

QUANTILE: Final = 0.95
_CONCENTRATION: Final = 40.0
_A = QUANTILE * _CONCENTRATION
_B = (1 - QUANTILE) * _CONCENTRATION
_PRIOR: Final = lgamma(_A) + lgamma(_B) - lgamma(_CONCENTRATION)
_LOG_BELOW: Final = log(QUANTILE)
_LOG_ABOVE: Final = log(1 - QUANTILE)


def ratio(
    canary: Mapping[int, int], control: Mapping[int, int], *, alpha_low: float, alpha_high: float
) -> Interval:
    """Bounds of (canary's 95th percentile / control's − 1), from bucket counts: 0.25 is a quarter slower.

    The lower one is ever above the truth with probability `alpha_low` at most, the upper one ever below it with
    `alpha_high`. −1 and infinity: not bounded yet.
    """
    slow, quick = _Arm(canary), _Arm(control)
    if slow.of == 0 or quick.of == 0:
        return Interval(-1.0, inf)
    step = 1.0 / BUCKETS_PER_OCTAVE
    down = _reach(slow.lower, quick.upper, -log(alpha_low), -1)
    up = _reach(slow.upper, quick.lower, -log(alpha_high), 1)
    low = -1.0 if down is None else 2.0 ** ((down[0] - down[1] - 1) * step) - 1.0
    high = inf if up is None else 2.0 ** ((up[0] - up[1] + 1) * step) - 1.0
    return Interval(low, high)


Edge = list[tuple[float, int]]
"""How surprising it is that the percentile lies this far out: (log martingale, bucket), outwards."""


class _Arm:
    """One side's percentile: `lower` and `upper` list how surprising each bucket would be, outwards."""

    def __init__(self, counts: Mapping[int, int]) -> None:
        self.of = sum(counts.values())
        self.lower: Edge = []
        self.upper: Edge = []
        if not self.of:
            return
        occupied = sorted(counts)
        below = 0
        spans: list[tuple[float, int, int]] = []  # (surprise, first bucket, last bucket)
        previous = -1
        for bucket in occupied:
            if bucket > previous + 1:
                spans.append((self._surprise(below, below), previous + 1, bucket - 1))
            spans.append((self._surprise(below, below + counts[bucket]), bucket, bucket))
            below += counts[bucket]
            previous = bucket
        if previous < LAST_BUCKET:
            spans.append((self._surprise(below, below), previous + 1, LAST_BUCKET))
        self.middle = min(range(len(spans)), key=lambda i: spans[i][0])
        self.lower = [(surprise, first) for surprise, first, _ in reversed(spans[: self.middle + 1])]
        self.upper = [(surprise, last) for surprise, _, last in spans[self.middle :]]

    def _surprise(self, least: int, most: int) -> float:
        """The smallest log martingale where between `least` and `most` of the latencies lie below."""
        best = QUANTILE * self.of - 0.45
        low = min(most, max(least, floor(best)))
        high = min(most, max(least, ceil(best)))
        return min(self._log_martingale(low), self._log_martingale(high))

    def _log_martingale(self, below: int) -> float:
        above = self.of - below
        mixed = lgamma(_A + below) + lgamma(_B + above) - lgamma(_CONCENTRATION + self.of) - _PRIOR
        return mixed - below * _LOG_BELOW - above * _LOG_ABOVE


def _reach(first: Edge, second: Edge, bound: float, sign: int) -> tuple[int, int] | None:
    """The buckets, one of each edge, that are as far apart (first − second, times `sign`) as `bound` allows; None:
    an end of all buckets is among the possible ones."""
    best: tuple[int, int] | None = None
    j = len(second) - 1
    for surprise, bucket in first:
        while j >= 0 and surprise + second[j][0] >= bound:
            j -= 1
        if j < 0:
            break
        other = second[j][1]
        if bucket in (0, LAST_BUCKET) or other in (0, LAST_BUCKET):
            return None
        if best is None or sign * (bucket - other) > sign * (best[0] - best[1]):
            best = (bucket, other)
    return best
