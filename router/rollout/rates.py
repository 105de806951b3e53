"""The sequential test for rates: an always-valid interval for the difference of two shares. Pure.

**What.** Two streams of yes-or-no outcomes, canary and control. For one stream and a supposed rate p, the
likelihood of what was seen, averaged over a fixed mixture of rates, divided by its likelihood under p, is a
martingale when p is true (the mixture SPRT of Robbins, with beta mixtures, for which it is a closed formula).
The product of the two streams' martingales is one too. By Ville's inequality it ever reaches 1/α with
probability α at most, however often one looks and whenever one stops. So the pairs (p canary, p control) for
which it lies below 1/α form a confidence set that may be looked at after every request; the interval is what
differences that set leaves possible.

**Why this one.** Error counts are small: a normal approximation (the usual mSPRT for differences, a t-test)
is wrong exactly where releases are judged, at 0 to 5 errors. This one is exact at any count, gives an interval
with the verdict, needs nothing but five integers, and its only assumption is that the outcomes of a stream
have one rate (or that both streams' rates move together; the cohorts run at the same time for that reason) and are
independent. A heavy user whose every task fails is not independent of himself: sticky keys put him in one
cohort whole. That can stop a release that is well; it is the price of stickiness, and such a check says so by
naming both rates.

The mixture is half Beta(½, ½), half Beta(½, 20): the second knows that error rates are small, which makes the
interval at zero errors a third narrower, for a loss of log 2 elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf, lgamma, log, log1p
from typing import NamedTuple

_PRIORS = ((0.5, 0.5), (0.5, 20.0))
_OUTER = 34
_INNER = 40


class Interval(NamedTuple):
    low: float
    high: float


def difference(
    canary_hits: int,
    canary_of: int,
    control_hits: int,
    control_of: int,
    *,
    alpha_low: float,
    alpha_high: float,
) -> Interval:
    """Bounds of (canary's rate − control's rate), in shares of 1.

    The lower one is ever above the truth with probability `alpha_low` at most, the upper one ever below it with
    `alpha_high`, over all looks together.
    """
    if canary_of == 0 or control_of == 0:
        return Interval(-1.0, 1.0)
    evidence = _log_mixture(canary_hits, canary_of) + _log_mixture(control_hits, control_of)
    best = canary_hits / canary_of - control_hits / control_of

    def surprise(d: float) -> float:
        """The log of the smallest martingale over all pairs of rates with this difference."""
        return evidence + _least_loss(d, canary_hits, canary_of, control_hits, control_of)

    return Interval(
        _edge(best, -1.0, -log(alpha_low), surprise), _edge(best, 1.0, -log(alpha_high), surprise)
    )


def _edge(inside: float, end: float, bound: float, measure: Callable[[float], float]) -> float:
    """Where the convex `measure` reaches `bound` between `inside` and `end`; the outer side of it."""
    if measure(end) < bound:
        return end
    outside = end
    for _ in range(_OUTER):
        middle = (inside + outside) / 2
        if measure(middle) < bound:
            inside = middle
        else:
            outside = middle
    return outside


def _log_mixture(hits: int, of: int) -> float:
    """The log likelihood of one order of the outcomes, averaged over the mixture."""
    logs = [_log_beta(a + hits, b + of - hits) - _log_beta(a, b) - log(len(_PRIORS)) for a, b in _PRIORS]
    top = max(logs)
    return top + log(sum(exp(value - top) for value in logs))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _least_loss(d: float, hits: int, of: int, base_hits: int, base_of: int) -> float:
    """The smallest −log likelihood over all rates (p + d, p): convex in p, so its slope's sign is bisected."""
    low, high = max(0.0, -d), min(1.0, 1.0 - d)
    misses, base_misses = of - hits, base_of - base_hits
    for _ in range(_INNER):
        p = (low + high) / 2
        q = p + d
        slope = 0.0
        if hits:
            slope -= hits / q if q > 0 else inf
        if base_hits:
            slope -= base_hits / p if p > 0 else inf
        if misses:
            slope += misses / (1 - q) if q < 1 else inf
        if base_misses:
            slope += base_misses / (1 - p) if p < 1 else inf
        if slope < 0:
            low = p
        else:
            high = p
    p = (low + high) / 2
    return _loss(hits, misses, p + d) + _loss(base_hits, base_misses, p)


def _loss(hits: int, misses: int, p: float) -> float:
    loss = 0.0
    if hits:
        loss -= hits * log(p) if p > 0 else -inf
    if misses:
        loss -= misses * log1p(-p) if p < 1 else -inf
    return loss
