"""Three verdicts on a canary, each check with its difference, interval, threshold and reason in words. Pure.

    fail          surely worse than allowed: the e-process (eprocess.py) or the interval excludes all that is allowed
    pass          the interval lies wholly within the threshold: surely allowed. Or: enough requests, the estimate is at
                  most half of the threshold, and the interval reaches down to "no worse": nothing speaks against it.
                  Or: the estimate is about the threshold, and twice as much is excluded (`Leeway`)
    inconclusive  everything else; too few requests, or none, above all

`min_requests` holds back a pass, never a failure: the tests are valid from the first request on. A request without an
answer after twice the time in which control answers 99 % counts as an error while it is open, and when its client gives
up: else a canary that hangs would be judged by its survivors.

A failure is a promise: over all looks, steps and checks of a rollout a canary that is no worse than allowed is aborted
with probability 1 − `confidence` at most (5 %), as that is divided evenly among them; half of it goes to the stint as a
whole, half to its windows (lately.py), so that a canary that sickens late is found soon. A pass is none, unless it is
of the first kind. The second is what Kayenta and Argo call a pass; who wants proof of two points at a rate of a third
of tasks failing needs ten thousand requests. The third lets a canary finish that is as bad as the operators allow; the
estimate of such a one is above the threshold half of the time. Both are sound because a rollout goes on judging in
every later step, and because `min_requests` is the operators' own word for "enough".
"""

from __future__ import annotations

from typing import Final

import msgspec

from router.counting.tally import Tally
from router.rollout.checks import (
    Check,
    Leeway,
    Verdict,
    async_check,
    latency_check,
    parts_check,
    rate_check,
    room_check,
    too_few,
)
from router.rollout.look import EVERYTHING, Look
from router.rollout.patience import errors, failed_tasks, patience_us
from router.routing.plan import ABORTING_CHECKS, AbortWhen, CheckName, Plan
from router.routing.table import WEIGHT_TOTAL

EARLY: Final = Leeway(1.5, 3.0)
LAST: Final = Leeway(1.25, 2.0)
"""In the last step with a control; in those before, where a hold sees fewer requests, a later step judges again."""


class Analysis(msgspec.Struct, frozen=True):
    """All checks of one moment. The verdict is the worst of those that count: fail, inconclusive, pass."""

    verdict: Verdict
    reason: str
    checks: tuple[Check, ...] = ()
    canary_requests: int = 0
    control_requests: int = 0
    enough: bool = False
    """Both cohorts have `min_requests`."""


def analyse(
    plan: Plan,
    canary: Tally,
    control: Tally,
    look: Look = EVERYTHING,
    *,
    step: int | None = None,
    elsewhen: bool = False,
) -> Analysis:
    """Judge what was seen since the weight last changed.

    `look`: its latest window, in which a canary may fail, too, but not pass; and what its pieces tell. `step`: the
    plan's; None: the last with a control. `elsewhen`: control was seen in an earlier step, as at 100 % there is none.
    """
    limits = plan.abort_when
    alpha = check_alpha(plan)
    after_us = patience_us(control)
    leeway = LAST if step is None or _last_compared(plan, step) else EARLY
    checks = _checks(limits, (canary, control), look, after_us, alpha / 2, leeway, elsewhen=elsewhen)
    window = look.window
    if window is not None:
        sides = window.canary, window.control
        piece = Look(clumps=look.clumps, proof=window.proof, bursts=look.bursts)
        recent = _checks(
            limits, sides, piece, after_us, alpha / 2 * window.part, leeway, elsewhen=elsewhen, window=True
        )
        checks = [
            msgspec.structs.replace(late, reason=f"lately, {late.reason}")
            if late.verdict is Verdict.FAIL and check.verdict is not Verdict.FAIL
            else check
            for check, late in zip(checks, recent, strict=True)
        ]
    checks.append(parts_check(canary, control, limits, alpha))
    checks = [msgspec.structs.replace(check, report_only=check.name in plan.report_only) for check in checks]
    seen, base = errors(canary, after_us)[1], errors(control, after_us)[1]
    few = too_few(limits.min_requests, seen, base)
    worst, reason = _worst([check for check in checks if not check.report_only], few)
    if elsewhen:
        reason += " (compared with control of the step before, as at 100 % there is none)"
    return Analysis(worst, reason, tuple(checks), seen, base, not few)


def _last_compared(plan: Plan, step: int) -> bool:
    """No later step has a control."""
    return all(later.weight in (None, WEIGHT_TOTAL) for later in plan.steps[step + 1 :])


def check_alpha(plan: Plan) -> float:
    """The chance of a false alarm that one check has in one step: half for its whole stint, half for its windows."""
    return (1.0 - plan.abort_when.confidence) / (max(1, plan.weighted_steps) * len(ABORTING_CHECKS))


def _worst(checks: list[Check], few: str) -> tuple[Verdict, str]:
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        bad = [check for check in checks if check.verdict is verdict]
        if few and verdict is Verdict.INCONCLUSIVE:
            # Also where every check is off or only reports: silence is never a pass.
            full = [check.reason for check in bad if check.name is CheckName.ROOM]
            return verdict, "; ".join([few, *full])
        if bad:
            return verdict, bad[0].reason
    return Verdict.PASS, "every check passed"


def _checks(
    limits: AbortWhen,
    sides: tuple[Tally, Tally],
    look: Look,
    after_us: float,
    alpha: float,
    leeway: Leeway,
    *,
    elsewhen: bool,
    window: bool = False,
) -> list[Check]:
    """`window`: only to find harm. Where the estimate shows none, the check is not worked out."""
    canary, control = sides
    late = canary.overdue(after_us)
    judged, base = errors(canary, after_us), errors(control, after_us)
    few = too_few(limits.min_requests, judged[1], base[1])
    return [
        rate_check(
            CheckName.ERRORS,
            f"error rate ({late} without an answer after {after_us / 1e6:.3g} s)" if late else "error rate",
            judged,
            base,
            limits.error_rate_over_baseline,
            alpha,
            few,
            leeway,
            look.proof.get(CheckName.ERRORS),
            look.bursts.get(CheckName.ERRORS, 1.0),
            window=window,
        ),
        rate_check(
            CheckName.TASKS,
            "share of failed tasks",
            failed_tasks(canary),
            failed_tasks(control),
            limits.task_failures_over_baseline,
            alpha,
            few,
            leeway,
            look.proof.get(CheckName.TASKS),
            look.bursts.get(CheckName.TASKS, 1.0),
            window=window,
        ),
        async_check(canary, control, limits, alpha, leeway),
        latency_check(
            *(look.warm or sides), limits, alpha, leeway, look.clumps, elsewhen=elsewhen, window=window
        ),
        room_check(canary, control, alpha),
    ]
