"""The wait of a rollout in words: for what, how long at most, and what happens then. Pure."""

from __future__ import annotations

from typing import Any

from router.rollout.glide import MAX_MOVES, MOVE_EVERY_S
from router.rollout.progress import GATE_WAIT_S
from router.rollout.record import Progress
from router.rollout.states import Phase


def waits_of(progress: Progress) -> dict[str, Any] | None:
    """`{"for": words, "at_most_s": seconds or None, "then": words}`; None: nothing is waited for."""
    plan = progress.plan
    if plan is None:
        return None
    step = progress.step + 1
    item = plan.steps[progress.step]
    match progress.phase:
        case Phase.HOLDING if item.weight is not None and progress.weight > item.weight:
            return _wait(f"the way down to {item.weight / 100:g} %", None, f"the hold of step {step} begins")
        case Phase.HOLDING:
            left_s = max(0.0, max(item.hold_s, progress.least_hold_s) - progress.held_s)
            last = step == len(plan.steps)
            then = "done" if last else f"step {step + 1}"
            return _wait(
                f"the hold of step {step}", left_s, f"{then}, if the checks pass; else it waits for them"
            )
        case Phase.WAITING:
            enough = progress.analysis is not None and progress.analysis.enough
            fate = plan.on_inconclusive if enough else plan.on_no_data
            left_s = max(0.0, plan.wait_s(progress.step) - progress.waited_s)
            most = (
                f" (or {plan.max_requests} requests of the canary)" if plan.max_requests is not None else ""
            )
            return _wait(f"a verdict on step {step}{most}", left_s, _fate(fate))
        case Phase.GATED:
            most_s = GATE_WAIT_S if plan.max_wait_s is None else plan.max_wait_s
            return _wait(f"the gate of step {step}", max(0.0, most_s - progress.waited_s), "it pauses")
        case Phase.PAUSED:
            return _wait("somebody to resume, skip or abort", None, "nothing: the checks go on")
        case Phase.RETURNING:
            left_s = max(0.0, plan.wait_s(progress.step) - progress.waited_s)
            return _wait("the next move, or evidence before the last one", left_s, _fate(plan.on_no_data))
        case Phase.ABORTING:
            return _wait(
                "the next move down, or another set that takes new work", MAX_MOVES * MOVE_EVERY_S, "aborted"
            )
    return None


def _wait(what: str, at_most_s: float | None, then: str) -> dict[str, Any]:
    return {"for": what, "at_most_s": None if at_most_s is None else round(at_most_s, 1), "then": then}


def _fate(fate: str) -> str:
    return "it aborts" if fate == "abort" else "it pauses"
