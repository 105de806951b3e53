"""Harm that a part of the traffic takes: one image, one account, tasks that time out or run out of memory. Pure.

A fault that hits one image of thirty is one part in thirty of all errors, and may lie within the margin for all. So
each place of `counting/parts.py` is compared by itself, canary with control, by the same always-valid interval,
against the same margins. Many looks at once would find harm by chance. Therefore the chance of a false alarm that the
check has is divided among three questions (images, accounts, reasons), and there among all places and both kinds of
harm, seen or not (Bonferroni). That costs some evidence: an image whose every request fails is found after 12 callers a
side, one that fails every third after 69; beside a control ten times as large after 5 and 27.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from router.counting.parts import ACCOUNTS, IMAGES, Part, Shape, count
from router.counting.tally import Tally
from router.rollout import rates
from router.routing.plan import AbortWhen

FEW: Final = 3
"""Least number of callers that were harmed: fewer are never enough, and most parts have fewer."""
_QUESTIONS: Final = 3
_KINDS: Final = 2
_ANY_ALPHA: Final = 0.1
"""For the upper bound, which nobody asks for."""


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
            f"{self.what} {self.canary:.2%} against {self.control:.2%}: {points} "
            f"(at least {self.low * 100:+.2f}), allowed {self.margin * 100:+.2f} points: surely more than allowed"
        )


class _Pair(NamedTuple):
    """Hits among so many, at the canary and at control."""

    what: str
    canary: tuple[int, int]
    control: tuple[int, int]
    margin: float | None
    alpha: float


def worst_part(canary: Tally, control: Tally, limits: AbortWhen, alpha: float) -> Harm | None:
    """The part that is worst beyond its margin; None: no part surely is. `alpha`: how often, at most, one is found
    although all parts are equal, over all looks."""
    found: Harm | None = None
    for pair in _pairs(canary, control, limits, alpha / _QUESTIONS):
        (hits, of), (base_hits, base_of) = pair.canary, pair.control
        if pair.margin is None or hits < FEW or not base_of:
            continue
        mine, base = hits / of, base_hits / base_of
        if mine - base <= pair.margin or (found is not None and mine - base <= found.low):
            continue
        low, high = rates.difference(
            hits, of, base_hits, base_of, alpha_low=pair.alpha, alpha_high=_ANY_ALPHA
        )
        if low > pair.margin and (found is None or low > found.low):
            found = Harm(pair.what, low, high, mine, base, pair.margin)
    return found


def image_alpha(alpha: float) -> float:
    """The chance of a false alarm that one image has for its errors, of the check's `alpha`."""
    return alpha / _QUESTIONS / (IMAGES.places * _KINDS)


def _pairs(canary: Tally, control: Tally, limits: AbortWhen, alpha: float) -> Iterator[_Pair]:
    yield from _places("image", canary.images, control.images, limits, alpha, IMAGES)
    yield from _places("account", canary.accounts, control.accounts, limits, alpha, ACCOUNTS)
    for what, mine, base in (
        ("share of tasks that timed out", canary.timed_out, control.timed_out),
        ("share of tasks that ran out of memory", canary.out_of_memory, control.out_of_memory),
    ):
        yield _Pair(
            what,
            (mine, canary.answered),
            (base, control.answered),
            limits.task_failures_over_baseline,
            alpha / 2,
        )


def _places(
    kind: str,
    canary: Mapping[int, Part],
    control: Mapping[int, Part],
    limits: AbortWhen,
    alpha: float,
    shape: Shape,
) -> Iterator[_Pair]:
    alpha /= shape.places * _KINDS
    for place, part in canary.items():
        base = control.get(place)
        if base is None:
            continue
        of, base_of = count(part.seen), count(base.seen)
        for words, mine, other, margin in (
            ("error rate", part.error, base.error, limits.error_rate_over_baseline),
            ("share of failed tasks", part.failed, base.failed, limits.task_failures_over_baseline),
        ):
            yield _Pair(
                f"{words} of {kind} {part.name!r}, by callers",
                (count(mine), of),
                (count(other), base_of),
                margin,
                alpha,
            )
