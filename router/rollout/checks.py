"""The checks of a canary: each compares one thing with control, and gives its verdict with the reason in words. Pure.

`analysis.py` says what the verdicts mean, and joins them to one.
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
from router.rollout.parts import worst_part
from router.routing.plan import AbortWhen, CheckName

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


def proof_needed(alpha: float) -> float:
    """The log of the evidence that fails a check with this chance of a false alarm; its interval has a part of that."""
    return -log(alpha * (1.0 - ALPHA_INTERVAL))


def too_few(least: int, canary: int, control: int) -> str:
    """Why there is too little to judge, or nothing."""
    for name, requests in (("canary", canary), ("control", control)):
        if requests < least:
            return f"requests of the {name}: {requests}; min_requests asks for {least}"
    return ""


def rate_check(
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


def async_check(canary: Tally, control: Tally, limits: AbortWhen, alpha: float, leeway: Leeway) -> Check:
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
    return rate_check(
        CheckName.ASYNC,
        words,
        (canary.async_failed, canary.async_ended),
        (control.async_failed, control.async_ended),
        threshold,
        alpha,
        "",
        leeway,
    )


def parts_check(canary: Tally, control: Tally, limits: AbortWhen, alpha: float) -> Check:
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


def latency_check(
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
    few = too_few(limits.min_requests, canary.measured, control.measured)
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


def room_check(canary: Tally, control: Tally, alpha: float) -> Check:
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
