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

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from math import inf, lgamma, log, log2
from typing import Final

from router.counting.tally import BUCKETS_PER_OCTAVE, LAST_BUCKET
from router.rollout.rates import Interval

QUANTILE: Final = 0.95
WANDERS: Final = 5.0
"""No two sets differ by this factor for a minute only: it is four standard deviations, where each wanders by one of 0.3
of the logarithm."""
_CONCENTRATION: Final = 40.0
_A = QUANTILE * _CONCENTRATION
_B = (1 - QUANTILE) * _CONCENTRATION
_PRIOR: Final = lgamma(_A) + lgamma(_B) - lgamma(_CONCENTRATION)
_LOG_BELOW: Final = log(QUANTILE)
_LOG_ABOVE: Final = log(1 - QUANTILE)


def ratio(
    canary: Mapping[int, int],
    control: Mapping[int, int],
    *,
    alpha_low: float,
    alpha_high: float,
    clumps: tuple[float, float] = (1.0, 1.0),
) -> Interval:
    """Bounds of (canary's 95th percentile / control's − 1), from bucket counts: 0.25 is a quarter slower.

    The lower one is ever above the truth with probability `alpha_low` at most, the upper one ever below it with
    `alpha_high`. −1 and infinity: not bounded yet.

    `clumps`: how many requests of canary and control count as one independent one (`clumps.py`), for the lower bound.
    But no set wanders by a factor of `WANDERS`: what is left above it counts as of independent ones. The upper bound
    takes each as independent, as nothing that passes is safe for ever.
    """
    if not canary or not control:
        return Interval(-1.0, inf)
    step = 1.0 / BUCKETS_PER_OCTAVE
    slow, quick = _Sketch(canary), _Sketch(control)
    each = _Arm(slow), _Arm(quick)
    down = _reach(_Arm(slow, clumps[0]), _Arm(quick, clumps[1]), -log(alpha_low), -1)
    low = 0.0 if down is None else 2.0 ** ((down - 1) * step)
    if max(clumps) > 1.0 and each[0].middle - each[1].middle > BUCKETS_PER_OCTAVE * log2(WANDERS):
        down = _reach(*each, -log(alpha_low), -1)
        low = max(low, 0.0 if down is None else 2.0 ** ((down - 1) * step) / WANDERS)
    up = _reach(*each, -log(alpha_high), 1)
    high = inf if up is None else 2.0 ** ((up + 1) * step)
    return Interval(low - 1.0, high - 1.0)


class _Sketch:
    """One side's latencies: the occupied buckets, and how many lie below each of them and above all."""

    def __init__(self, counts: Mapping[int, int]) -> None:
        self.buckets = sorted(counts)
        self.below = [0, *accumulate([counts[bucket] for bucket in self.buckets])]


class _Arm:
    """One side's percentile, and how surprising it would be in another bucket."""

    def __init__(self, sketch: _Sketch, clump: float = 1.0) -> None:
        """`clump` latencies count as one."""
        self._buckets, self._below, self._clump = sketch.buckets, sketch.below, clump
        self._of = self._below[-1] / clump
        self._fixed = -lgamma(_CONCENTRATION + self._of) - _PRIOR
        self._likeliest = QUANTILE * self._of - 0.45
        middle = bisect_left(self._below, self._likeliest * clump) - 1
        self._middle = min(len(self._buckets) - 1, max(0, middle))
        """Where the percentile is least surprising, among the occupied buckets."""
        self.middle = self._buckets[self._middle]
        self.least = self._surprise(self._below[self._middle], self._below[self._middle + 1])

    def edge(self, sign: int, bound: float) -> list[tuple[float, int]]:
        """(log martingale, bucket) from the middle outwards, up (`sign` 1) or down (−1), as long as it is below
        `bound`. Empty buckets between two occupied ones count as one, by the outermost."""
        found: list[tuple[float, int]] = []
        buckets, below = self._buckets, self._below
        index = self._middle
        while 0 <= index < len(buckets):
            surprise = self._surprise(below[index], below[index + 1])
            if surprise >= bound:
                break
            found.append((surprise, buckets[index]))
            passed = below[index + 1] if sign > 0 else below[index]
            index += sign
            if index < 0:
                following = -1
            else:
                following = buckets[index] if index < len(buckets) else LAST_BUCKET + 1
            if abs(following - found[-1][1]) > 1:
                surprise = self._surprise(passed, passed)
                if surprise >= bound:
                    break
                found.append((surprise, following - sign))
        return found

    def _surprise(self, least: int, most: int) -> float:
        """The smallest log martingale where between `least` and `most` of the latencies lie below."""
        below = min(most / self._clump, max(least / self._clump, self._likeliest))
        above = self._of - below
        mixed = lgamma(_A + below) + lgamma(_B + above) + self._fixed
        return mixed - below * _LOG_BELOW - above * _LOG_ABOVE


def _reach(slow: _Arm, quick: _Arm, bound: float, sign: int) -> int | None:
    """How many buckets the two percentiles can lie apart (slow − quick, times `sign`), as far as `bound` allows; None:
    an end of all buckets is among the possible ones."""
    first, second = slow.edge(sign, bound - quick.least), quick.edge(-sign, bound - slow.least)
    best: int | None = None
    j = len(second) - 1
    for surprise, bucket in first:
        while j >= 0 and surprise + second[j][0] >= bound:
            j -= 1
        if j < 0:
            break
        other = second[j][1]
        if bucket in (0, LAST_BUCKET) or other in (0, LAST_BUCKET):
            return None
        if best is None or sign * (bucket - other) > sign * best:
            best = bucket - other
    return best
