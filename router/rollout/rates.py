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
cohort whole. So a key counts for a hundredth of its cohort at most (`counting/shares.py`).

The mixture is half Beta(½, ½), half Beta(½, 20): the second knows that error rates are small, which makes the
interval at zero errors a third narrower, for a loss of log 2 elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from math import acos, copysign, cos, exp, inf, lgamma, log, log1p, pi, sqrt
from typing import Final, NamedTuple

_PRIORS: Final = ((0.5, 0.5), (0.5, 20.0))
_REGRET: Final = 12.0
"""Twice the evidence that not knowing the rates costs, about."""
_STEPS: Final = 40
_NEAR: Final = 1e-7
"""How well a bound is known: in shares of 1, or as a part of the root of its evidence."""


class Interval(NamedTuple):
    low: float
    high: float


def difference(
    canary_hits: float,
    canary_of: float,
    control_hits: float,
    control_of: float,
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

    # An interval of normal approximations is a first guess, often a good one.
    spread = sqrt(_variance(canary_hits, canary_of) + _variance(control_hits, control_of))
    bound_low, bound_high = -log(alpha_low), -log(alpha_high)
    low = _edge(best, -1.0, max(-1.0, best - spread * sqrt(2 * bound_low + _REGRET)), bound_low, surprise)
    high = _edge(best, 1.0, min(1.0, best + spread * sqrt(2 * bound_high + _REGRET)), bound_high, surprise)
    return Interval(low, high)


def _variance(hits: float, of: float) -> float:
    """The variance of a rate, as if there had been one hit and one miss more."""
    rate = (hits + 1) / (of + 2)
    return rate * (1 - rate) / of


def _edge(best: float, end: float, guess: float, bound: float, measure: Callable[[float], float]) -> float:
    """Where the convex `measure` reaches `bound` between its lowest point `best` and `end`.

    Its root above the lowest point is nearly a line, so secants find it soon (the Illinois method: where one side stays
    the same twice, its value is halved)."""
    least = measure(best)
    wanted = sqrt(bound - least)
    inside, under = best, -wanted
    outside, over = end, inf
    at, kept, reached = guess, 0, False
    for _ in range(_STEPS):
        found = sqrt(max(0.0, measure(at) - least)) - wanted
        if abs(found) < _NEAR * wanted or abs(outside - inside) < _NEAR:
            return at
        if found < 0.0:
            if at == end:
                return end
            inside, under = at, found
            over = over / 2 if kept == 1 else over
            kept = 1
        else:
            outside, over, reached = at, found, True
            under = under / 2 if kept == -1 else under
            kept = -1
        if over < inf:
            at = (inside * over - outside * under) / (over - under)
        elif not reached:
            # Beyond the guess: as far again, or to the end.
            at = end if abs(end - inside) <= abs(inside - best) else inside + (inside - best)
        else:
            at = (inside + outside) / 2
    return outside


def _log_mixture(hits: float, of: float) -> float:
    """The log likelihood of one order of the outcomes, averaged over the mixture."""
    logs = [_log_beta(a + hits, b + of - hits) - _log_beta(a, b) - log(len(_PRIORS)) for a, b in _PRIORS]
    top = max(logs)
    return top + log(sum(exp(value - top) for value in logs))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _least_loss(d: float, hits: float, of: float, base_hits: float, base_of: float) -> float:
    """The smallest −log likelihood over all rates (p + d, p)."""
    p = nearest(d, hits, of, base_hits, base_of)
    return _loss(hits, of - hits, p + d) + _loss(base_hits, base_of - base_hits, p)


def nearest(d: float, hits: float, of: float, base_hits: float, base_of: float) -> float:
    """The rate p for which (p + d, p) makes what was seen likeliest.

    Its slope vanishes at a root of a cubic, the one that Miettinen and Nurminen (1985) give in closed form.
    """
    both = of + base_of
    two = ((of + 2 * base_of) * d - both - hits - base_hits) / (3 * both)
    one = ((base_of * d - both - 2 * base_hits) * d + hits + base_hits) / both
    zero = base_hits * d * (1 - d) / both
    q = two**3 - one * two / 2 + zero / 2
    r = copysign(sqrt(max(0.0, two * two - one / 3)), q)
    angle = (pi + acos(min(1.0, max(-1.0, q / r**3)))) / 3 if r else 0.0
    p = 2 * r * cos(angle) - two
    return min(1.0, 1.0 - d, max(0.0, -d, p))


def _loss(hits: float, misses: float, p: float) -> float:
    loss = 0.0
    if hits:
        loss -= hits * log(p) if p > 0.0 else -inf
    if misses:
        loss -= misses * log1p(-p) if p < 1.0 else -inf
    return loss
