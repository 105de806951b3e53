"""Preview of a start: its steps and checks, how long it takes, how much traffic it needs. Pure.

The start itself is played on a copy of the progress, so what it would refuse or skip is not guessed. What a check needs
is asked of the very tests that judge (`rates`, `tail`), with made-up counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil, isinf, log2
from typing import Any, Final

from router.choosing.serving import UNKNOWN, Health
from router.counting.tally import BUCKETS_PER_OCTAVE, bucket_of
from router.rollout import rates, tail
from router.rollout.analysis import check_alpha
from router.rollout.checks import ALPHA_PASS, proof_needed
from router.rollout.eprocess import Counts, EProcess
from router.rollout.glide import next_weight
from router.rollout.orders import Order, permit, starting
from router.rollout.overlay import overlay
from router.rollout.parts import image_fails_after
from router.rollout.progress import advance
from router.rollout.record import Progress
from router.rollout.states import NotAllowed, Phase
from router.routing.plan import ABORTING_CHECKS, CheckName, Plan, Step
from router.routing.table import WEIGHT_TOTAL, Table

MOST_REQUESTS: Final = 1 << 20
"""A check that needs more cannot be met."""
_QUICK: Final = bucket_of(20_000.0)
_Enough = Callable[[int], bool]


def preview(
    file: Table,
    live: Table,
    progress: Progress,
    now: float,
    requests_per_s: float,
    health: Health = UNKNOWN,
) -> dict[str, Any] | None:
    """Describe a start of the file's plan now; None: the file has no plan, or a rollout is under way.

    `live`: the table in force. `requests_per_s`: of all sets of the default weights. Weights, thresholds and confidence
    in percent; `…_s` in seconds, None: not at all at this rate.

        plan (its digest), set, weights {set: in force}, stable (the sets it is compared with), dry_run, on_no_data,
        refused (why a start would be), returning (it would skip the steps), requests_per_s, min_requests, confidence,
        steps [{weight, pause, hold_s, gate, effective {set: …}, compared_per_s (requests of each cohort),
        enough_s (until both have enough to pass: min_requests, and what latency takes), about_s,
        sick_s (until a canary fails whose every request fails),
        starves (it would end for lack of requests)}],
        lowers (the set would go down, in percent: {from, to, glides: move by move}; None: it would not),
        hold_s and about_s of all steps (about_s None: too few requests to judge one of them in time), pauses, gates,
        let_through (harm that the plan does not abort for, in words),
        checks [{name, aborts, threshold, unit, fails_after, proves_after (requests of each cohort; None: never)}]
    """
    plan = file.rollout
    if plan is None or progress.running:
        return None
    refused, returning, lowers = None, False, None
    try:
        after, _ = advance(progress, starting(file, progress), now)
        permit(Order.START, file, progress, after, health)
        returning = after.phase is Phase.RETURNING
        target, now_at = plan.steps[after.step].weight, live.default.shares.get(plan.set, 0)
        if target is not None and target < now_at and not plan.dry_run and not returning:
            lowers = {
                "from": now_at / 100,
                "to": target / 100,
                "glides": next_weight(now_at, target, growing=(), warm=WEIGHT_TOTAL - now_at) > target,
            }
    except NotAllowed as error:
        refused = str(error)
    steps = [_step(plan, index, file, live, requests_per_s) for index in range(len(plan.steps))]
    # A step that nobody can judge in time does not go on by itself, so the steps have no time in all.
    about = [None if step["starves"] else step["about_s"] for step in steps if not step["pause"]]
    return {
        "plan": plan.digest,
        "set": plan.set,
        "weights": _percent(live.default.shares),
        "stable": sorted(n for n, share in live.default.shares.items() if share > 0 and n != plan.set),
        "dry_run": plan.dry_run,
        "on_no_data": str(plan.on_no_data),
        "let_through": let_through(plan),
        "refused": refused,
        "returning": returning,
        "lowers": lowers,
        "requests_per_s": round(requests_per_s, 2),
        "min_requests": plan.abort_when.min_requests,
        "confidence": plan.abort_when.confidence * 100,
        "steps": steps,
        "hold_s": sum(step.hold_s for step in plan.steps),
        "about_s": None if None in about else sum(about),
        "pauses": sum(step.weight is None for step in plan.steps),
        "gates": sum(step.gate is not None for step in plan.steps),
        "checks": [_check(plan, name) for name in ABORTING_CHECKS],
    }


def let_through(plan: Plan) -> list[str]:
    """Harm that lies within the margins: a canary that does no more may pass. A sentence for each check."""
    limits = plan.abort_when
    told = []
    for name, margin, what in (
        (CheckName.ERRORS, limits.error_rate_over_baseline, "errors"),
        (CheckName.TASKS, limits.task_failures_over_baseline, "failed tasks"),
        (CheckName.ASYNC, limits.async_failures_over_baseline, "failed asynchronous tasks"),
        (CheckName.LATENCY, limits.p95_over_baseline, ""),
    ):
        subject = what or "a 95th percentile of latency"
        if margin is None:
            text = f"{subject}: any, as the limit is off"
        elif what:
            points = "point" if margin == 0.01 else "points"
            text = f"up to {margin * 100:g} {points} more {what} than control"
        else:
            text = f"{subject} up to {margin * 100:g} % above control's"
        if margin is not None and name in plan.report_only:
            text += ", and more, as this check only reports"
        told.append(text)
    return told


def _percent(shares: Any) -> dict[str, float]:
    return {name: share / 100 for name, share in shares.items()}


def _step(plan: Plan, index: int, file: Table, live: Table, requests_per_s: float) -> dict[str, Any]:
    step: Step = plan.steps[index]
    if step.weight is None:
        return {"weight": None, "pause": True, "hold_s": 0.0, "gate": None}
    table = live if plan.dry_run else overlay(file, plan.set, step.weight)
    mine = table.default.shares.get(plan.set, 0)
    # The smaller cohort is the last that has enough. At 100 % an earlier control counts.
    compared = mine if mine == WEIGHT_TOTAL else min(mine, WEIGHT_TOTAL - mine)
    per_s = requests_per_s * compared / WEIGHT_TOTAL
    enough_s = _least(plan) / per_s if per_s else None
    sick_s = _sick_s(plan, per_s)
    ends_at_once = not step.hold_s and index == len(plan.steps) - 1
    return {
        "weight": step.weight / 100,
        "pause": False,
        "hold_s": step.hold_s,
        "gate": step.gate,
        "effective": _percent(table.default.shares),
        "compared_per_s": round(per_s, 3),
        "enough_s": None if enough_s is None else round(enough_s, 1),
        "sick_s": None if sick_s is None else round(sick_s, 1),
        "about_s": 0.0
        if ends_at_once
        else None
        if enough_s is None
        else round(max(step.hold_s, enough_s), 1),
        "starves": not ends_at_once and (enough_s is None or enough_s > step.hold_s + plan.wait_s(index)),
    }


def _sick_s(plan: Plan, per_s: float) -> float | None:
    """Seconds until a canary whose requests all fail is aborted, at this rate for each cohort."""
    fails = _check(plan, CheckName.ERRORS)
    if not per_s or not fails["aborts"] or fails["fails_after"] is None:
        return None
    return float(fails["fails_after"]) / per_s


def _least(plan: Plan) -> int:
    """Requests of each cohort without which no step passes."""
    limits = plan.abort_when
    if limits.p95_over_baseline is None or CheckName.LATENCY in plan.report_only:
        return limits.min_requests
    return max(limits.min_requests, _bounded() or 0)


@lru_cache(maxsize=1)
def _bounded() -> int | None:
    """Return the number of requests from which on latency has an upper bound, without which no step passes."""
    return _first(
        lambda n: (
            not isinf(tail.ratio({_QUICK: n}, {_QUICK: n}, alpha_low=ALPHA_PASS, alpha_high=ALPHA_PASS).high)
        )
    )


def _check(plan: Plan, name: CheckName) -> dict[str, Any]:
    limits = plan.abort_when
    threshold = {
        CheckName.ERRORS: limits.error_rate_over_baseline,
        CheckName.TASKS: limits.task_failures_over_baseline,
        CheckName.ASYNC: limits.async_failures_over_baseline,
        CheckName.LATENCY: limits.p95_over_baseline,
        CheckName.PARTS: limits.error_rate_over_baseline,
    }[name]
    fails = proves = None
    if name is CheckName.PARTS and threshold is not None:
        # Nothing waits for a proof, so none is needed.
        fails = image_fails_after(threshold, check_alpha(plan))
    elif threshold is not None:
        fails, proves = _needs(name is CheckName.LATENCY, threshold, check_alpha(plan) / 2)
        proves = proves and max(limits.min_requests, proves)
    return {
        "name": str(name),
        "aborts": threshold is not None and name not in plan.report_only,
        "threshold": None if threshold is None else threshold * 100,
        "unit": "% of control" if name is CheckName.LATENCY else "points",
        "fails_after": fails,
        "proves_after": proves,
    }


@lru_cache(maxsize=64)
def _needs(latency: bool, threshold: float, alpha: float) -> tuple[int | None, int | None]:
    """Requests that each cohort needs until a fully broken canary fails, and until a flawless one passes.

    For `latency`, a broken canary takes twice what is allowed, and a flawless one as long as control.
    """
    if latency:
        slow = _QUICK + ceil(BUCKETS_PER_OCTAVE * log2(2 * (1 + threshold)))
        return (
            _first(
                lambda n: (
                    tail.ratio({slow: n}, {_QUICK: n}, alpha_low=alpha, alpha_high=ALPHA_PASS).low > threshold
                )
            ),
            _first(
                lambda n: (
                    tail.ratio({_QUICK: n}, {_QUICK: n}, alpha_low=alpha, alpha_high=ALPHA_PASS).high
                    <= threshold
                )
            ),
        )
    return (
        _first(lambda n: EProcess(threshold).evidence(Counts(n, n, 0, n)) >= proof_needed(alpha)),
        _first(
            lambda n: rates.difference(0, n, 0, n, alpha_low=alpha, alpha_high=ALPHA_PASS).high <= threshold
        ),
    )


def _first(enough: _Enough) -> int | None:
    """The smallest number that is enough, where every greater one is, too."""
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_REQUESTS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
