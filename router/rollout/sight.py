"""Which requests an operator is shown beside the verdict: how many are open, and the few that tell most. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from router.counting.tally import BUCKETS_PER_OCTAVE, Tally
from router.counting.witnesses import Kind, Witness, telling
from router.rollout.analysis import Analysis
from router.rollout.checks import Verdict
from router.routing.plan import CheckName

_KINDS: Final = {
    CheckName.ERRORS: (Kind.ERROR, Kind.OPEN),
    CheckName.TASKS: (Kind.TASK,),
    CheckName.PARTS: (Kind.ERROR, Kind.TASK),
    CheckName.LATENCY: (Kind.SLOW, Kind.OPEN),
    CheckName.ASYNC: (Kind.TASK,),
}
"""The kinds of requests that speak of a check; of others: all kinds by turns."""
_ALL: Final = (Kind.ERROR, Kind.OPEN, Kind.TASK, Kind.SLOW)


class Open(msgspec.Struct, frozen=True):
    """Requests of one side that wait for their answer, and for how long the oldest does."""

    requests: int
    oldest_s: float | None


class Sight(msgspec.Struct, frozen=True):
    """`run`: the rollout that it belongs to."""

    run: int
    canary: Open
    control: Open
    witnesses: tuple[Witness, ...] = ()
    left_out: int = 0
    """Requests of both sides that are not judged, as their caller had his share."""


def sight_of(run: int, analysis: Analysis | None, canary: Tally, control: Tally) -> Sight:
    """Choose by the check that decides: the first that fails, else the first that cannot tell."""
    shown = telling(canary.witnesses, _kinds(analysis))
    return Sight(run, _open(canary), _open(control), shown, canary.left_out + control.left_out)


def _kinds(analysis: Analysis | None) -> tuple[Kind, ...]:
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        for check in analysis.checks if analysis is not None else ():
            if check.verdict is verdict and not check.report_only:
                return _KINDS.get(check.name, _ALL)
    return _ALL


def _open(tally: Tally) -> Open:
    if not tally.open:
        return Open(0, None)
    return Open(sum(tally.open.values()), round(2.0 ** (max(tally.open) / BUCKETS_PER_OCTAVE) / 1e6, 1))
