"""A rollout as plain data, for the admin API, the command line, the status page, gates and webhooks. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from router.rollout.checks import Check
from router.rollout.record import Event, Progress
from router.rollout.states import LEGAL_MOVES, Cause, Phase
from router.rollout.waits import waits_of
from router.routing.table import Table

_ORDERS: Final = (
    ("pause", Cause.STOP, (Phase.PAUSED,)),
    ("resume", Cause.RESUME, ()),
    ("abort", Cause.ABORT, ()),
)


def describe(progress: Progress, file: Table, live: Table) -> dict[str, Any]:
    """Everything that an operator wants to see. Weights in percent; differences, intervals and thresholds in percent
    (points for rates, percent of control for latency); `…_s` in seconds.

        phase, comparing (whether the canary is judged now), reason, set,
        dry_run, orders (those that would be taken now), step (from 1), of, steps [...],
        weight (as the rollout wants it; in a dry run, would), now (the set's in force), in_force (where a rollout, not
        the file, decides: {set, weight, others {set: hundredths, where the file gives the others nothing}}),
        weights {set: file's}, effective {set: in force}, hold_s, held_s, hold_left_s, waited_s, paused_s,
        verdict, verdict_reason, checks [{name, verdict, reason, difference, low, high, threshold, canary, control,
        report_only}], requests {canary, control}, hands_off, events [...] (newest last), epoch, led_by (who leads),
        barred [{set, since, build, reason}] (sets that an abort took back: they get nothing),
        waits {for, at_most_s, then} (None: for nothing), open {canary, control: {requests, oldest_s}} (those that the
        checks count), left_out (requests that they leave out, as one key or address had its share),
        witnesses [{kind, id, set, status, duration_s, request, image}] (three requests of the canary that tell most);
        these three fields are as the leader saw them last before the end,
        revision, run (counts starts), event (serial of the newest): what an order may be given for, see `orders.Given`
    """
    plan = progress.plan
    analysis = progress.analysis
    if analysis is None and progress.phase in (Phase.ABORTING, Phase.ABORTED):
        analysis = progress.last_analysis
    force = progress.in_force
    sight = progress.sight if progress.sight is not None and progress.sight.run == progress.run else None
    step = plan.steps[progress.step] if plan is not None else None
    at_step = progress.phase in (Phase.HOLDING, Phase.WAITING, Phase.PAUSED) and step is not None
    hold_s = max(step.hold_s, progress.least_hold_s) if at_step and step is not None else 0.0
    return {
        "phase": str(progress.phase),
        "comparing": progress.comparing,
        "reason": progress.reason,
        "set": plan.set if plan is not None else None,
        "dry_run": plan.dry_run if plan is not None else False,
        "plan_changed": plan is not None and progress.running and file.rollout != plan,
        "hands_off": progress.hands_off,
        "orders": orders(progress, file),
        "step": progress.step + 1 if plan is not None else None,
        "of": len(plan.steps) if plan is not None else 0,
        "steps": [
            {
                "weight": None if item.weight is None else item.weight / 100,
                "hold_s": item.hold_s,
                "gate": item.gate,
                "pause": item.weight is None,
                "now": progress.running and index == progress.step,
                "done": index < progress.step or progress.phase is Phase.DONE,
            }
            for index, item in enumerate(plan.steps if plan is not None else ())
        ],
        "weight": progress.weight / 100,
        "now": live.default.shares.get(plan.set, 0) / 100 if plan is not None else None,
        "in_force": None
        if force is None
        else {"set": force[0], "weight": force[1] / 100, "others": progress.others},
        "barred": [
            {"set": name, "since": bar.at, "build": bar.build, "reason": bar.why}
            for name, bar in sorted(progress.barred.items())
        ],
        "weights": {name: share / 100 for name, share in file.default.shares.items()},
        "effective": {name: share / 100 for name, share in live.default.shares.items()},
        "hold_s": hold_s,
        "held_s": progress.held_s if at_step else 0.0,
        "hold_left_s": max(0.0, hold_s - progress.held_s) if at_step else 0.0,
        "waited_s": progress.waited_s,
        "paused_s": progress.paused_s if progress.phase is Phase.PAUSED else 0.0,
        "verdict": None if analysis is None else str(analysis.verdict),
        "verdict_reason": None if analysis is None else analysis.reason,
        "checks": [_check(check) for check in (analysis.checks if analysis is not None else ())],
        "requests": {
            "canary": analysis.canary_requests if analysis is not None else 0,
            "control": analysis.control_requests if analysis is not None else 0,
        },
        "waits": waits_of(progress),
        "open": None if sight is None else {"canary": asdict(sight.canary), "control": asdict(sight.control)},
        "left_out": 0 if sight is None else sight.left_out,
        "witnesses": [] if sight is None else [msgspec.to_builtins(each) for each in sight.witnesses],
        "events": [event_of(event) for event in progress.events],
        "run": progress.run,
        "event": progress.last_event,
        "epoch": progress.epoch,
        "led_by": progress.led_by,
        "revision": progress.revision,
    }


def orders(progress: Progress, file: Table) -> list[str]:
    """The orders that would be taken now; buttons show these."""
    moves = LEGAL_MOVES[progress.phase]
    possible = []
    if Cause.START in moves and file.rollout is not None:
        possible.append("start")
    possible += [word for word, cause, not_in in _ORDERS if cause in moves and progress.phase not in not_in]
    if progress.phase in (Phase.HOLDING, Phase.WAITING, Phase.GATED, Phase.PAUSED):
        possible.append("skip")
    if progress.phase in (Phase.DONE, Phase.ABORTED) or (progress.phase is Phase.IDLE and progress.barred):
        possible.append("end")
    return possible


def event_of(event: Event) -> dict[str, Any]:
    """An event as JSON: the webhook's body."""
    return {
        **msgspec.to_builtins(event),
        "weight": event.weight / 100,
        "step": None if event.step is None else event.step + 1,
    }


def _check(check: Check) -> dict[str, Any]:
    def percent(value: float | None) -> float | None:
        return None if value is None else round(value * 100, 4)

    latency = check.name == "latency"
    return {
        "name": str(check.name),
        "verdict": str(check.verdict),
        "reason": check.reason,
        "report_only": check.report_only,
        "difference": percent(check.difference),
        "low": percent(check.low),
        "high": percent(check.high),
        "threshold": percent(check.threshold),
        "unit": "% of control" if latency else "points",
        "canary": check.canary if latency else percent(check.canary),
        "control": check.control if latency else percent(check.control),
        "side_unit": "µs" if latency else "%",
    }
