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

from collections.abc import Callable
from enum import StrEnum
from math import isinf, log, nextafter
from typing import Final, NamedTuple

import msgspec

from router.counting.tally import Tally
from router.rollout import rates, tail
from router.rollout.clumps import BURST_POINTS
from router.rollout.eprocess import FEWEST_HITS
from router.rollout.look import EVERYTHING, Look
from router.rollout.parts import worst_part
from router.rollout.patience import errors, failed_tasks, patience_us
from router.routing.plan import ABORTING_CHECKS, AbortWhen, CheckName, Plan
from router.routing.table import WEIGHT_TOTAL

ALPHA_PASS: Final = 0.1
"""How often, at most, an upper bound that lets a check pass is below the truth, over all looks of a step."""
ROOM_POINTS: Final = 0.05
"""Largest amount by which the canary's share of "full" answers may exceed control's before the release waits."""

ALPHA_INTERVAL: Final = 0.1
"""The part of a check's chance of a false alarm that its interval has beside an e-process."""


class Leeway(NamedTuple):
    """When a harm of about the margin passes, in parts of the margin: the estimate is `about` at most, and the upper
    bound `surely` at most."""

    about: float
    surely: float


EARLY: Final = Leeway(1.5, 3.0)
LAST: Final = Leeway(1.25, 2.0)
"""In the last step with a control; in those before, where a hold sees fewer requests, a later step judges again."""


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Check(msgspec.Struct, frozen=True):
    """One comparison. `difference`, `low`, `high` and `threshold` are shares of 1: points for rates, part of
    control's 95th percentile for latency; None: unknown, or unbounded."""

    name: CheckName
    verdict: Verdict
    reason: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    canary: float | None = None
    """Canary's own rate, or 95th percentile in µs; `control` likewise."""
    control: float | None = None
    report_only: bool = False


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
    checks.append(_of_parts(canary, control, limits, alpha))
    checks = [msgspec.structs.replace(check, report_only=check.name in plan.report_only) for check in checks]
    seen, base = errors(canary, after_us)[1], errors(control, after_us)[1]
    few = _too_few(limits.min_requests, seen, base)
    worst, reason = _worst([check for check in checks if not check.report_only], few)
    if elsewhen:
        reason += " (compared with control of the step before, as at 100 % there is none)"
    return Analysis(worst, reason, tuple(checks), seen, base, not few)


def proof_needed(alpha: float) -> float:
    """The log of the evidence that fails a check with this chance of a false alarm; its interval has a part of that."""
    return -log(alpha * (1.0 - ALPHA_INTERVAL))


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
    few = _too_few(limits.min_requests, judged[1], base[1])
    return [
        _rate(
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
        _rate(
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
        _later(canary, control, limits, alpha, leeway),
        _latency(*(look.warm or sides), limits, alpha, leeway, look.clumps, elsewhen=elsewhen, window=window),
        _room(canary, control, alpha),
    ]


def _too_few(least: int, canary: int, control: int) -> str:
    """Why there is too little to judge, or nothing."""
    for name, requests in (("canary", canary), ("control", control)):
        if requests < least:
            return f"requests of the {name}: {requests}; min_requests asks for {least}"
    return ""


def _rate(
    name: CheckName,
    words: str,
    canary: tuple[int, int],
    control: tuple[int, int],
    threshold: float | None,
    alpha: float,
    few: str,
    leeway: Leeway,
    proof: float | None = None,
    clump: float = 1.0,
    *,
    window: bool = False,
) -> Check:
    """`proof`: the log of the evidence for a harm above the threshold; None: nobody kept it. `clump`: so many requests
    count as one where harm is to be sure."""
    if threshold is None:
        return Check(name, Verdict.PASS, f"{words}: not judged, as its limit is off")
    mine = canary[0] / canary[1] if canary[1] else None
    base = control[0] / control[1] if control[1] else None
    difference = mine - base if mine is not None and base is not None else None
    if window and (difference is None or difference <= threshold):
        return Check(name, Verdict.PASS, words)
    if proof is not None:
        # Nearly all of the chance of a false alarm is the e-process's, which needs fewer requests.
        proven, alpha = proof >= proof_needed(alpha), alpha * ALPHA_INTERVAL
    else:
        proven = False
    interval = rates.difference(*canary, *control, alpha_low=alpha, alpha_high=ALPHA_PASS)
    if threshold < interval.low <= BURST_POINTS and clump > 1.0:
        fewer = [(hits / clump, of / clump) for hits, of in (canary, control)]
        low = rates.difference(*fewer[0], *fewer[1], alpha_low=alpha, alpha_high=ALPHA_PASS).low
        interval = interval._replace(low=low)
    if proven and interval.low <= threshold:
        interval = interval._replace(low=nextafter(threshold, 1.0))
    verdict, why = _judge(
        difference, interval, threshold, few, leeway, _points, may_fail=canary[0] >= FEWEST_HITS
    )
    sides = f" {mine:.2%} against {base:.2%}" if mine is not None and base is not None else ""
    return Check(
        name,
        verdict,
        f"{words}{sides}: {why}",
        difference,
        interval.low,
        interval.high,
        threshold,
        mine,
        base,
    )


def _later(canary: Tally, control: Tally, limits: AbortWhen, alpha: float, leeway: Leeway) -> Check:
    """How asynchronous tasks ended. Where hardly any do there is nothing to wait for: too few hold nothing up. Nor do
    they fail it, as no cohort is compared: one account's could be all that a set has."""
    words, threshold = "share of failed asynchronous tasks", limits.async_failures_over_baseline
    if threshold is not None:
        for side, ended in (("the canary", canary.async_ended), ("the old sets", control.async_ended)):
            if ended < limits.min_requests:
                why = f"{ended} ended at {side}"
                return Check(
                    CheckName.ASYNC,
                    Verdict.PASS,
                    f"{words}: {why}, not judged below {limits.min_requests}",
                    threshold=threshold,
                )
    return _rate(
        CheckName.ASYNC,
        words,
        (canary.async_failed, canary.async_ended),
        (control.async_failed, control.async_ended),
        threshold,
        alpha,
        "",
        leeway,
    )


def _of_parts(canary: Tally, control: Tally, limits: AbortWhen, alpha: float) -> Check:
    """Compare images, accounts and kinds of failure by themselves. It holds nothing up: most parts have too little
    traffic to be sure that they are well."""
    harm = worst_part(canary, control, limits, alpha)
    if harm is None:
        return Check(
            CheckName.PARTS,
            Verdict.PASS,
            "images, time-outs and memory by themselves: no harm is sure",
            threshold=limits.error_rate_over_baseline,
        )
    return Check(
        CheckName.PARTS,
        Verdict.FAIL,
        harm.words,
        harm.canary - harm.control,
        harm.low,
        harm.high,
        harm.margin,
        harm.canary,
        harm.control,
    )


def _latency(
    canary: Tally,
    control: Tally,
    limits: AbortWhen,
    alpha: float,
    leeway: Leeway,
    clumps: tuple[float, float],
    *,
    elsewhen: bool,
    window: bool = False,
) -> Check:
    name, words, threshold = CheckName.LATENCY, "95th percentile of latency", limits.p95_over_baseline
    if threshold is None:
        return Check(name, Verdict.PASS, f"{words}: not judged, as its limit is off")
    if elsewhen:
        # A day's slope would look like the canary's fault.
        return Check(name, Verdict.PASS, f"{words}: not judged at 100 %, as control is of an earlier hour")
    mine = canary.quantile_us(tail.QUANTILE)
    base = control.quantile_us(tail.QUANTILE)
    difference = mine / base - 1.0 if mine is not None and base is not None else None
    if window and (difference is None or difference <= threshold):
        return Check(name, Verdict.PASS, words)
    interval = tail.ratio(canary.waits, control.waits, alpha_low=alpha, alpha_high=ALPHA_PASS, clumps=clumps)
    few = _too_few(limits.min_requests, canary.measured, control.measured)
    verdict, why = _judge(difference, interval, threshold, few, leeway, _parts)
    sides = ""
    if mine is not None and base is not None:
        sides = f" {mine / 1000:.4g} ms against {base / 1000:.4g} ms"
    return Check(
        name,
        verdict,
        f"{words}{sides}: {why}",
        difference,
        None if interval.low <= -1.0 else interval.low,
        None if isinf(interval.high) else interval.high,
        threshold,
        mine,
        base,
    )


def _room(canary: Tally, control: Tally, alpha: float) -> Check:
    """Compare how often the canary and the control are full. It never fails: a set that is too small for more is no
    reason to take back what it carries."""
    name, words = CheckName.ROOM, "share of requests that met a full set"
    if not canary.shed and not control.shed:
        return Check(name, Verdict.PASS, f"{words}: none", threshold=ROOM_POINTS)
    interval = rates.difference(
        canary.shed,
        canary.requests,
        control.shed,
        control.requests,
        alpha_low=alpha,
        alpha_high=ALPHA_PASS,
    )
    mine, base = canary.shed / max(1, canary.requests), control.shed / max(1, control.requests)
    full = interval.low > ROOM_POINTS
    why = "canary is full too often to be given more; make room there" if full else "room enough"
    return Check(
        name,
        Verdict.INCONCLUSIVE if full else Verdict.PASS,
        f"{words} {mine:.2%} against {base:.2%}: {why}",
        mine - base,
        interval.low,
        interval.high,
        ROOM_POINTS,
        mine,
        base,
    )


def _judge(
    difference: float | None,
    interval: rates.Interval,
    threshold: float,
    few: str,
    leeway: Leeway,
    show: Callable[[float], str],
    *,
    may_fail: bool = True,
) -> tuple[Verdict, str]:
    if difference is None:
        return Verdict.INCONCLUSIVE, few or "nothing to compare"
    low, high = interval
    words = f"{show(difference)} (between {show(low)} and {show(high)}), allowed {show(threshold)}"
    if low > threshold and may_fail:
        # However few: the interval knows.
        return Verdict.FAIL, f"{words}: surely more than allowed"
    if few:
        return Verdict.INCONCLUSIVE, few
    if high <= threshold:
        return Verdict.PASS, f"{words}: surely within"
    # A harm without any bound yet is not the lack of harm.
    if low <= 0.0 and not isinf(high) and difference <= threshold / 2:
        return Verdict.PASS, f"{words}: nothing speaks against it"
    if high <= leeway.surely * threshold and difference <= leeway.about * threshold:
        return Verdict.PASS, f"{words}: about within, and surely below {show(leeway.surely * threshold)}"
    return Verdict.INCONCLUSIVE, f"{words}: cannot be told yet"


def _points(value: float) -> str:
    return f"{value * 100:+.2f} points"


def _parts(value: float) -> str:
    if isinf(value):
        return "no bound yet"
    return f"{value * 100:+.1f} %"
