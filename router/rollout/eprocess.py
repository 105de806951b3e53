"""The sequential test that fails a canary: evidence that its rate is above control's by more than the margin. Pure.

**What.** Each request is the canary's or control's, by its key. For a pair of supposed rates (canary, control) and the
pair nearest to it that the margin allows (nearest by likelihood, the canary's share of requests counted in), the
likelihood ratio of the two is a bet against "worse by the margin at most": made on every request, it multiplies its
stake on average by at most one as long as that is true, even if both rates move, provided that their difference stays
within the margin (the *reverse information projection* of Grünwald, Turner and others). So the stake is an *e-process*:
the chance that it ever reaches 1/α is α at most, however often one looks and whenever one stops.

The bets are a handful: control's rate as it was in the slices of time before this one, and the canary above it by the
margin and a geometric series of excesses. The evidence is the average of their stakes.

**Why this one.** An interval for the difference (rates.py) must learn control's rate as well as the canary's, and pays
for both: 850 requests for five points more errors at a margin of two, beside a control that is 19 times as large. Here
control's rate costs next to nothing, as it stands on both sides of the ratio: 560. No test of this kind needs fewer
than 481, as that many make the likelihood ratio 640, if both rates were known beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log, log1p
from typing import Final, NamedTuple

from router.rollout.rates import nearest

FEWEST_HITS: Final = 8
"""Requests of the canary that must have gone wrong before it fails: a broken user or a few cold slots may be behind
fewer at the start of a step."""
_LEAST_EXCESS: Final = 0.002
_GROWTH: Final = 2.2
_HIGHEST: Final = 0.995
_GUESS_HITS: Final = 0.5
_GUESS_OF: Final = 100.0
"""Control's rate before anything is seen of it: one in 200, which a hundred requests outweigh."""


class Counts(NamedTuple):
    """Requests that went wrong, of how many, at the canary and at control."""

    hits: int
    of: int
    base_hits: int
    base_of: int

    def __add__(self, more: object) -> Counts:
        assert isinstance(more, Counts)
        return Counts(*(one + other for one, other in zip(self, more, strict=True)))


NOTHING: Final = Counts(0, 0, 0, 0)


class EProcess:
    """One check's evidence over a stretch of time, slice by slice: `close` each, and ask for it at any time within."""

    def __init__(self, margin: float, before: Counts = NOTHING) -> None:
        """`before`: what was seen before this stretch, from which control's rate is guessed."""
        self.seen = NOTHING
        self.before = before
        self._margin = margin
        self._excesses = _excesses(margin)
        self._stakes = [0.0] * len(self._excesses)
        """Logs of what each bet has made of 1."""

    @property
    def known(self) -> Counts:
        """Return everything that was seen in this stretch and before it."""
        return self.before + self.seen

    def close(self, slice_: Counts) -> None:
        """A slice of time is over."""
        self._stakes = self._staked(slice_)
        self.seen += slice_

    def evidence(self, slice_: Counts, *, clump: float = 1.0, fewest_hits: int = FEWEST_HITS) -> float:
        """The log of the evidence with a slice that still runs; minus infinity where nothing speaks of harm.

        `clump`: so many requests count as one (`clumps.py`), as the root of a likelihood ratio is a fair bet, too."""
        hits, of, base_hits, base_of = self.seen + slice_
        if hits < fewest_hits or not base_of or hits / of - base_hits / base_of <= self._margin:
            return -inf
        stakes = [stake / clump for stake in self._staked(slice_)]
        top = max(stakes)
        return top + log(sum(exp(stake - top) for stake in stakes) / len(stakes))

    def _staked(self, slice_: Counts) -> list[float]:
        hits, of, base_hits, base_of = slice_
        if not of or not base_of:
            return self._stakes
        base = (_GUESS_HITS + self.known.base_hits) / (_GUESS_OF + self.known.base_of)
        stakes = []
        for stake, excess in zip(self._stakes, self._excesses, strict=True):
            mine = min(_HIGHEST, base + self._margin + excess)
            if mine <= base + self._margin:
                stakes.append(stake)  # Control fails nearly always: nothing is worse by the margin.
                continue
            allowed = nearest(self._margin, of * mine, of, base_of * base, base_of)
            most = allowed + self._margin
            stakes.append(
                stake
                + hits * log(mine / most)
                + (of - hits) * (log1p(-mine) - log1p(-most))
                + base_hits * log(base / allowed)
                + (base_of - base_hits) * (log1p(-base) - log1p(-allowed))
            )
        return stakes


def _excesses(margin: float) -> Sequence[float]:
    """How far above the margin the bets suppose the canary."""
    found = []
    excess = max(margin, _LEAST_EXCESS) / 2
    most = _HIGHEST - margin
    while excess < most / _GROWTH:
        found.append(excess)
        excess *= _GROWTH
    return [*found, most]
