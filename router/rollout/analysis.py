"""Three verdicts on a canary, each check with its difference, interval, threshold and reason in words. Pure.

    fail          the interval lies wholly above the threshold: surely worse than allowed
    pass          the interval lies wholly within it: surely allowed. Or: enough requests, the estimate is at most half
                  of the threshold, and the interval reaches down to "no worse": nothing speaks against it
    inconclusive  everything else; too few requests, or none, above all

`min_requests` holds back a pass, never a failure: the interval is valid from the first request on. A request without an
answer after twice the time in which control answers 99 % counts as an error while it is open, and when its client gives
up: else a canary that hangs would be judged by its survivors.

The first is a promise: over all looks, steps and checks of a rollout an equal canary is aborted with probability
1 − `confidence` at most (5 %), as that is divided evenly among them; half of it goes to the stint as a whole, half
to its windows (lately.py), so that a canary that sickens late is found soon. The second kind of pass is none: it
is what Kayenta and Argo call a pass, for who wants proof of two points at a rate of a third of tasks failing needs
ten thousand requests. It is sound because a rollout goes on judging in every later step, and because
`min_requests` is the operators' own word for "enough".
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from math import inf, isinf
from typing import Final, NamedTuple

import msgspec

from router.counting.tally import Tally
from router.rollout import rates, tail
from router.rollout.parts import worst_part
from router.routing.plan import ABORTING_CHECKS, AbortWhen, CheckName, Plan

ALPHA_PASS: Final = 0.1
"""How often, at most, an upper bound that lets a check pass is below the truth, over all looks of a step."""
ROOM_POINTS: Final = 0.05
"""A canary may be full in so much more of its requests than control before it must wait."""


PATIENCE_TIMES: Final = 2.0
LEAST_PATIENCE_US: Final = 2e6
"""A request never counts as an error for its age sooner than this, however quick control is."""


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


class Window(NamedTuple):
    """Tallies of the latest window; `number` counts the stint's windows from 1."""

    canary: Tally
    control: Tally
    number: int

    @property
    def part(self) -> float:
        """Its part of the chance of a false alarm: over however many windows, together not more than one."""
        return 1.0 / (self.number * (self.number + 1))


def analyse(
    plan: Plan,
    canary: Tally,
    control: Tally,
    *,
    lately: Window | None = None,
    warm: tuple[Tally, Tally] | None = None,
    elsewhen: bool = False,
) -> Analysis:
    """Judge what was seen since the weight last changed. `lately`: what of it belongs to the latest window, in which a
    canary may fail, too, but not pass. `warm`: what came after both sets had settled, by which latency is judged; None:
    all. `elsewhen`: control was seen in an earlier step, as at 100 % there is none."""
    limits = plan.abort_when
    alpha = check_alpha(plan)
    sides = canary, control
    patience_us = _patience_us(control)
    checks = _checks(limits, sides, warm or sides, patience_us, alpha / 2, elsewhen=elsewhen)
    if lately is not None:
        sides = lately.canary, lately.control
        recent = _checks(limits, sides, sides, patience_us, alpha / 2 * lately.part, elsewhen=elsewhen)
        checks = [
            msgspec.structs.replace(late, reason=f"lately, {late.reason}")
            if late.verdict is Verdict.FAIL and check.verdict is not Verdict.FAIL
            else check
            for check, late in zip(checks, recent, strict=True)
        ]
    checks.append(_of_parts(canary, control, limits, alpha))
    checks = [msgspec.structs.replace(check, report_only=check.name in plan.report_only) for check in checks]
    seen, base = (each.judged + each.overdue(patience_us) for each in (canary, control))
    few = _too_few(limits.min_requests, seen, base)
    worst, reason = _worst([check for check in checks if not check.report_only], few)
    if elsewhen:
        reason += " (compared with control of the step before, as at 100 % there is none)"
    return Analysis(worst, reason, tuple(checks), seen, base, not few)


def _patience_us(control: Tally) -> float:
    """The time after which a request without an answer counts as an error."""
    slow_us = control.answered_us(0.99)
    return inf if slow_us is None else max(LEAST_PATIENCE_US, PATIENCE_TIMES * slow_us)


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
    warm: tuple[Tally, Tally],
    patience_us: float,
    alpha: float,
    *,
    elsewhen: bool,
) -> list[Check]:
    canary, control = sides
    late, base_late = canary.overdue(patience_us), control.overdue(patience_us)
    judged, base = canary.judged + late, control.judged + base_late
    few = _too_few(limits.min_requests, judged, base)
    return [
        _rate(
            CheckName.ERRORS,
            f"error rate ({late} without an answer after {patience_us / 1e6:.3g} s)"
            if late
            else "error rate",
            (canary.error + late, judged),
            (control.error + base_late, base),
            limits.error_rate_over_baseline,
            alpha,
            few,
        ),
        _rate(
            CheckName.TASKS,
            "share of failed tasks",
            (canary.task_failed, canary.answered),
            (control.task_failed, control.answered),
            limits.task_failures_over_baseline,
            alpha,
            few,
        ),
        _later(canary, control, limits, alpha),
        _latency(*warm, limits, alpha, elsewhen=elsewhen),
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
) -> Check:
    if threshold is None:
        return Check(name, Verdict.PASS, f"{words}: not judged, as its limit is off")
    interval = rates.difference(*canary, *control, alpha_low=alpha, alpha_high=ALPHA_PASS)
    mine = canary[0] / canary[1] if canary[1] else None
    base = control[0] / control[1] if control[1] else None
    difference = mine - base if mine is not None and base is not None else None
    verdict, why = _judge(difference, interval, threshold, few, _points)
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


def _later(canary: Tally, control: Tally, limits: AbortWhen, alpha: float) -> Check:
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
    )


def _of_parts(canary: Tally, control: Tally, limits: AbortWhen, alpha: float) -> Check:
    """Compare images, accounts and kinds of failure by themselves. It holds nothing up: most parts have too little
    traffic to be sure that they are well."""
    harm = worst_part(canary, control, limits, alpha)
    if harm is None:
        return Check(
            CheckName.PARTS, Verdict.PASS, "images, time-outs and memory by themselves: no harm is sure"
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


def _latency(canary: Tally, control: Tally, limits: AbortWhen, alpha: float, *, elsewhen: bool) -> Check:
    name, words, threshold = CheckName.LATENCY, "95th percentile of latency", limits.p95_over_baseline
    if threshold is None:
        return Check(name, Verdict.PASS, f"{words}: not judged, as its limit is off")
    if elsewhen:
        # A day's slope would look like the canary's fault.
        return Check(name, Verdict.PASS, f"{words}: not judged at 100 %, as control is of an earlier hour")
    interval = tail.ratio(canary.waits, control.waits, alpha_low=alpha, alpha_high=ALPHA_PASS)
    mine = canary.quantile_us(tail.QUANTILE)
    base = control.quantile_us(tail.QUANTILE)
    difference = mine / base - 1.0 if mine is not None and base is not None else None
    few = _too_few(limits.min_requests, canary.measured, control.measured)
    verdict, why = _judge(difference, interval, threshold, few, _parts)
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
    show: Callable[[float], str],
) -> tuple[Verdict, str]:
    if difference is None:
        return Verdict.INCONCLUSIVE, few or "nothing to compare"
    low, high = interval
    words = f"{show(difference)} (between {show(low)} and {show(high)}), allowed {show(threshold)}"
    if low > threshold:
        # However few: the interval knows.
        return Verdict.FAIL, f"{words}: surely more than allowed"
    if few:
        return Verdict.INCONCLUSIVE, few
    if high <= threshold:
        return Verdict.PASS, f"{words}: surely within"
    # A harm without any bound yet is not the lack of harm.
    if low <= 0.0 and not isinf(high) and difference <= threshold / 2:
        return Verdict.PASS, f"{words}: nothing speaks against it"
    return Verdict.INCONCLUSIVE, f"{words}: cannot be told yet"


def _points(value: float) -> str:
    return f"{value * 100:+.2f} points"


def _parts(value: float) -> str:
    if isinf(value):
        return "no bound yet"
    return f"{value * 100:+.1f} %"
