"""Harm that a part of the traffic takes: one image, one account, tasks that time out or run out of memory. Pure.

A fault that hits one image of thirty is one part in thirty of all errors, and may lie within the margin for all. So
each place of `counting/parts.py` is compared by itself, canary with control, by the same test (eprocess.py) and
against the same margins; control's rate is guessed from the other places.

Many looks at once would find harm by chance. Therefore the chance of a false alarm that the check has is divided among
three questions (images, accounts, reasons) and two kinds of harm. Within each, the places bet together: a stake of
which a share lies on each place is an e-process, too, as no request belongs to two places, and so is the average over
a few such shares. A small share finds one place that is surely worse, a larger one several of which none is alone. An
image whose every request fails is found after 10 callers a side, one that fails every third after 53; beside a control
three times as large after 8 and 29.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import exp, inf, log, log1p
from typing import Final, NamedTuple

from router.counting.parts import ACCOUNTS, IMAGES, Part, Shape, count
from router.counting.tally import Tally
from router.rollout import rates
from router.rollout.eprocess import FEWEST_HITS, NOTHING, Counts, EProcess
from router.routing.plan import AbortWhen

_QUESTIONS: Final = 3
_KINDS: Final = 2
_SHARES: Final = (0.02, 0.1)
"""Shares of the places that may be sick together, beside one of all."""
_FEWEST_HITS: Final = 3
"""Callers of one place that must have been harmed, for it to count; all together must be as many as for any check."""
_ALPHA_SHOWN: Final = 0.05
"""For either bound of the interval that is shown, which decides nothing."""


class Harm(NamedTuple):
    """A part that is surely worse than its margin allows, in shares of 1."""

    what: str
    low: float
    high: float
    canary: float
    control: float
    margin: float

    @property
    def words(self) -> str:
        points = f"{(self.canary - self.control) * 100:+.2f} points"
        return (
            f"{self.what} {self.canary:.2%} against {self.control:.2%}: {points}, "
            f"allowed {self.margin * 100:+.2f} points: surely more than allowed"
        )


class _Place(NamedTuple):
    """Where harm may be: hits among so many at both sides, and control's elsewhere."""

    what: str
    counts: Counts
    elsewhere: Counts = NOTHING


class _Question(NamedTuple):
    """Places of one kind, of which there are `of`, seen or not."""

    places: Iterable[_Place]
    of: int
    margin: float | None


def worst_part(canary: Tally, control: Tally, limits: AbortWhen, alpha: float) -> Harm | None:
    """The part that is worst beyond its margin; None: no part surely is. `alpha`: how often, at most, one is found
    although all parts are equal, over all looks."""
    found: Harm | None = None
    strongest = 0.0
    for question in _questions(canary, control, limits):
        worst, evidence = _asked(question)
        surplus = evidence - proof_needed(alpha)
        if worst is not None and question.margin is not None and surplus >= strongest:
            strongest, found = surplus, _harm(worst, question.margin)
    return found


def proof_needed(alpha: float) -> float:
    """The log of the evidence that answers one question, of the check's `alpha`."""
    return -log(alpha / (_QUESTIONS * _KINDS))


def image_fails_after(margin: float, alpha: float) -> int | None:
    """The number of callers of one image, on either side, after which the check finds that it always fails."""

    def evidence(callers: int) -> float:
        image = _Place("", Counts(callers, callers, 0, callers))
        return _asked(_Question([image], IMAGES.places, margin))[1]

    enough = proof_needed(alpha)
    return next((n for n in range(FEWEST_HITS, IMAGES.slots) if evidence(n) >= enough), None)


def _asked(question: _Question) -> tuple[_Place | None, float]:
    """The place that is worst, and the log of the evidence that any is worse than the margin."""
    margin, worst, top = question.margin, None, -inf
    if margin is None:
        return None, -inf
    stakes, hits = [], 0
    for place in question.places:
        stake = EProcess(margin, place.elsewhere).evidence(place.counts, fewest_hits=_FEWEST_HITS)
        stakes.append(stake)
        if stake > -inf:
            hits += place.counts.hits
        if stake > top:
            worst, top = place, stake
    if hits < FEWEST_HITS:
        return None, -inf
    together = [_together(stakes, share) for share in (1 / question.of, *_SHARES)]
    best = max(together)
    return worst, best + log(sum(exp(each - best) for each in together) / len(together))


def _together(stakes: list[float], share: float) -> float:
    """Log of the combined bet, of which each place holds `share`. An unseen place counts as 1."""
    return sum(
        log1p(-share) if stake == -inf else stake + log(share + (1.0 - share) * exp(-stake))
        for stake in stakes
    )


def _harm(place: _Place, margin: float) -> Harm:
    hits, of, base_hits, base_of = place.counts
    low, high = rates.difference(*place.counts, alpha_low=_ALPHA_SHOWN, alpha_high=_ALPHA_SHOWN)
    return Harm(place.what, low, high, hits / of, base_hits / base_of, margin)


def _questions(canary: Tally, control: Tally, limits: AbortWhen) -> Iterator[_Question]:
    errors, tasks = limits.error_rate_over_baseline, limits.task_failures_over_baseline
    for kind, mine, other, shape in (
        ("image", canary.images, control.images, IMAGES),
        ("account", canary.accounts, control.accounts, ACCOUNTS),
    ):
        yield _of_parts(f"error rate of {kind}", "error", mine, other, shape, errors)
        yield _of_parts(f"share of failed tasks of {kind}", "failed", mine, other, shape, tasks)
    for what, hits, base_hits in (
        ("share of tasks that timed out", canary.timed_out, control.timed_out),
        ("share of tasks that ran out of memory", canary.out_of_memory, control.out_of_memory),
    ):
        yield _Question([_Place(what, Counts(hits, canary.answered, base_hits, control.answered))], 1, tasks)


def _of_parts(
    words: str,
    harm: str,
    canary: Mapping[int, Part],
    control: Mapping[int, Part],
    shape: Shape,
    margin: float | None,
) -> _Question:
    base = {place: (count(getattr(part, harm)), count(part.seen)) for place, part in control.items()}
    all_hits, all_of = sum(hits for hits, _ in base.values()), sum(of for _, of in base.values())
    places = (
        _Place(
            f"{words} {part.name!r}, by callers",
            Counts(count(getattr(part, harm)), count(part.seen), *base[place]),
            Counts(0, 0, all_hits - base[place][0], all_of - base[place][1]),
        )
        for place, part in canary.items()
        if place in base
    )
    return _Question(places, shape.places, margin)
