"""How much longer evidence must come in until a verdict is certain, if all goes on like this. Pure."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from router.counting.tally import Tally
from router.rollout.analysis import Analysis, analyse
from router.rollout.checks import Verdict
from router.rollout.eprocess import Counts, EProcess
from router.rollout.look import Look
from router.rollout.patience import errors, failed_tasks, patience_us
from router.routing.plan import CheckName, Plan

_TIMES: Final = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0)
"""Factors by which the evidence is extrapolated: from half an hour's worth to a day's."""


def telling(
    plan: Plan, analysis: Analysis, canary: Tally, control: Tally, look: Look, step: int, seen_s: float
) -> Analysis:
    """`analysis`, whose reason also tells when it would be certain. Only one that has requests enough is helped.

    `seen_s`: over which time the evidence came."""
    if analysis.verdict is not Verdict.INCONCLUSIVE or not analysis.enough:
        return analysis
    warm = look.warm or (canary, control)
    for times in _TIMES:
        sides = _grown(canary, times), _grown(control, times)
        grown = Look(
            warm=(_grown(warm[0], times), _grown(warm[1], times)),
            clumps=look.clumps,
            proof=_proof(plan, *sides),
        )
        verdict = analyse(plan, *sides, grown, step=step).verdict
        if verdict is not Verdict.INCONCLUSIVE:
            word = "fail" if verdict is Verdict.FAIL else "pass"
            left_s = seen_s * (times - 1)
            return _adding(analysis, f"at this traffic it would {word} in about {_span(left_s)}")
    return _adding(analysis, f"at this traffic {_span(seen_s * _TIMES[-1])} would not be enough to tell")


def _adding(analysis: Analysis, words: str) -> Analysis:
    return replace(analysis, reason=f"{analysis.reason}; {words}")


def _proof(plan: Plan, canary: Tally, control: Tally) -> dict[CheckName, float]:
    """The evidence of harm, where control's rate is known from the beginning."""
    after_us = patience_us(control)
    found = {}
    for name, margin, mine, base in (
        (
            CheckName.ERRORS,
            plan.abort_when.error_rate_over_baseline,
            errors(canary, after_us),
            errors(control, after_us),
        ),
        (
            CheckName.TASKS,
            plan.abort_when.task_failures_over_baseline,
            failed_tasks(canary),
            failed_tasks(control),
        ),
    ):
        if margin is not None:
            found[name] = EProcess(margin, Counts(0, 0, *base)).evidence(Counts(*mine, *base))
    return found


def _grown(tally: Tally, times: float) -> Tally:
    """Return the tally with this many times its counts; without images and accounts, which hold nothing up."""

    def counts(buckets: dict[int, int]) -> dict[int, int]:
        return {bucket: round(count * times) for bucket, count in buckets.items()}

    return Tally(
        ok=round(tally.ok * times),
        task_failed=round(tally.task_failed * times),
        error=round(tally.error * times),
        shed=round(tally.shed * times),
        client_left=round(tally.client_left * times),
        latencies=counts(tally.latencies),
        unanswered=counts(tally.unanswered),
        open=counts(tally.open),
        async_ok=round(tally.async_ok * times),
        async_failed=round(tally.async_failed * times),
    )


def _span(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
