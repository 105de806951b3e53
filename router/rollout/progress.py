"""The rollout's state machine: something happens, out come the next progress and instructions. Pure.

Weights change nowhere else. Time comes in with every call and is used in clipped pieces (`MAX_TICK_S`), so that
a jump of the clock or a router that was down never ends a hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from router.rollout.checks import Verdict
from router.rollout.flow import flowing, marked, window_s
from router.rollout.glide import MAX_MOVES, MOVE_EVERY_S
from router.rollout.record import (
    Abort,
    AskGate,
    Edited,
    End,
    GateSaid,
    Gone,
    Happening,
    Pause,
    Progress,
    Resume,
    Skip,
    Start,
    Tick,
)
from router.rollout.states import Cause, NeedsForce, NotAllowed, Phase
from router.rollout.turn import NEARLY, Turn
from router.routing.table import WEIGHT_TOTAL

MAX_TICK_S: Final = 5.0
GATE_EVERY_S: Final = 15.0
GATE_WAIT_S: Final = 86400.0
"""Longest time, in seconds, that a gate may say "not now", if `max_wait` does not set another."""
_UNDER_WAY: Final = (Phase.HOLDING, Phase.WAITING, Phase.GATED, Phase.PAUSED, Phase.RETURNING)


def advance(progress: Progress, happening: Happening, now: float) -> tuple[Progress, tuple[AskGate, ...]]:
    """The progress after `happening` at `now` (seconds since the epoch), and what to do about it.

    The old progress is not touched. Raises `NotAllowed` for an order that does not fit the phase.
    """
    turn = Turn(msgspec.structs.replace(progress), now)
    _HANDLERS[type(happening)](_Handling(turn), happening)
    return turn.p, tuple(turn.instructions)


class _Handling:
    """The effect of each happening, as moves of one turn."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.p = turn.p

    # Orders.

    def start(self, order: Start) -> None:
        p = self.p
        name = order.plan.set
        if p.running:
            raise NotAllowed(f"a rollout of {self.turn.plan.set!r} is under way ({p.phase}); abort it first")
        if not order.takes_work:
            raise NotAllowed(f"set {name!r} takes no new work; make it `ready` first")
        others = {other for other, share in order.shares.items() if share > 0 and other != name}
        if not others:
            raise NotAllowed(f"no set but {name!r} has a weight above 0; there is nothing to compare with")
        if order.others is not None and not any(order.others.values()):
            raise NotAllowed(f"no set but {name!r} takes new work; make another one `ready` first")
        before = p.in_force
        if before is not None and before[0] != name and len(others | {before[0]}) > 1:
            old, weight = before
            if order.shares.get(old, 0) != weight:
                raise NotAllowed(
                    f"the last rollout left {old!r} at {weight / 100:g} %, the file says "
                    f"{order.shares.get(old, 0) / 100:g} %; write that into the file first"
                )
        first = next(step.weight for step in order.plan.steps if step.weight is not None)
        if before is not None and before[1] == 0 and others == {before[0]} and first < WEIGHT_TOTAL:
            raise NotAllowed(
                f"{before[0]!r} was taken back, and would get {(WEIGHT_TOTAL - first) / 100:g} % by the first step; "
                "`end` that rollout first, if this is meant"
            )
        if p.plan is None or p.plan.events != order.plan.events:
            # The webhook of this release gets no events of earlier ones.
            p.posted = p.last_event
        earlier = p.carriers.get(name)
        p.urls = dict(order.urls)
        self.turn.remember(order.effective)
        p.run += 1
        p.plan = order.plan
        if not order.plan.dry_run:
            self.turn.readmit(name, "a rollout of it starts", by=order.by)
        p.beneath = before if order.plan.dry_run else None
        p.others = {}
        p.loads = {}
        self.turn.rest_on(order.shares)
        p.based_at = self.turn.now
        p.weight = order.effective.get(name, 0)
        p.hands_off = False
        p.recent_weights = ()
        p.analysis = p.last_analysis = p.baseline = None
        p.ticked_at = self.turn.now
        self.turn.new_stint()
        reason = f"rollout of {name} started{_because(order.why)}"
        if (
            earlier is not None
            and earlier.url == order.urls.get(name)
            and earlier.build == (p.builds if order.builds is None else order.builds).get(name, "")
            and 0.0 <= self.turn.now - earlier.at <= order.plan.return_window_s
            and earlier.share >= NEARLY * order.plan.final_weight
            and order.plan.final_weight > p.weight
        ):
            p.moves_left = MAX_MOVES
            p.moved_s = MOVE_EVERY_S
            p.step = len(order.plan.steps) - 1
            p.waited_s = p.least_hold_s = 0.0
            self.turn.to(
                Cause.RETURN,
                Phase.RETURNING,
                f"{reason}; it carried {earlier.share / 100:g} % {self.turn.now - earlier.at:.0f} s ago, so its "
                "steps are skipped",
                by=order.by,
            )
            return
        self.turn.event("started", reason, by=order.by)
        self.turn.enter(0, cause=Cause.START)

    def pause(self, order: Pause) -> None:
        if self.p.phase not in _UNDER_WAY or self.p.phase is Phase.PAUSED:
            raise NotAllowed(f"a rollout that is {self.p.phase} cannot be paused; only one under way can")
        self.turn.stop(f"paused by hand{_because(order.why)}", by=order.by)

    def resume(self, order: Resume) -> None:
        p = self.p
        if p.phase is not Phase.PAUSED:
            raise NotAllowed(f"a rollout that is {p.phase} cannot be resumed; only a paused one can")
        self._takes_work(order)
        reason = f"resumed{_because(order.why)}"
        p.waited_s = p.gate_due_s = 0.0
        if p.paused_from is Phase.RETURNING:
            p.hands_off = False
            p.moves_left = MAX_MOVES
            self.turn.to(Cause.RESUME, Phase.RETURNING, reason, by=order.by)
        elif p.paused_from is Phase.GATED:
            p.hands_off = False
            self.turn.to(Cause.RESUME, Phase.GATED, reason, by=order.by)
        elif self.turn.plan.steps[p.step].weight is None:
            self.turn.event("resumed", reason, by=order.by)
            self.turn.enter(p.step + 1)
        elif p.hands_off:
            self.turn.event("resumed", reason, by=order.by)
            self.turn.enter(p.step, gated=False)
        else:
            self.turn.to(Cause.RESUME, Phase.HOLDING, reason, by=order.by)

    def skip(self, order: Skip) -> None:
        p = self.p
        if p.phase not in _UNDER_WAY or p.phase is Phase.RETURNING:
            raise NotAllowed(f"a rollout that is {p.phase} has no step to skip")
        self._takes_work(order)
        if p.phase is Phase.HOLDING and self.turn.above and p.step == len(self.turn.plan.steps) - 1:
            raise NotAllowed(
                f"{self.turn.plan.set} is on its way down to the last step's weight still; see it there first"
            )
        self.turn.event("skipped", f"step {p.step + 1} skipped{_because(order.why)}", by=order.by)
        if p.phase is Phase.GATED or (p.phase is Phase.PAUSED and p.paused_from is Phase.GATED):
            self.turn.enter(p.step, gated=False)
        else:
            self.turn.enter(p.step + 1)

    def _takes_work(self, order: Resume | Skip) -> None:
        if not order.takes_work:
            raise NotAllowed(f"set {self.turn.plan.set!r} takes no new work; make it `ready` first")

    def abort(self, order: Abort) -> None:
        p = self.p
        reason = f"aborted by hand{_because(order.why)}"
        at_once = order.at_once or order.force
        if p.phase is Phase.ABORTING:
            if not at_once:
                raise NotAllowed("the rollout is being aborted already; `at once` would make it one move")
            self._has_takers(order)
            self.turn.event("abort", "the rest at once" + _because(order.why), by=order.by)
            self.turn.empty()
            return
        if p.phase not in _UNDER_WAY and p.phase is not Phase.DONE:
            raise NotAllowed(f"there is nothing to abort: the rollout is {p.phase}; start one first")
        self._has_takers(order)
        self.turn.roll_back(reason, by=order.by, at_once=at_once)

    def _has_takers(self, order: Abort) -> None:
        """Raise `NotAllowed` if an abort would leave no set to take requests."""
        name = self.turn.plan.set
        self.turn.takers = order.others
        if not self.turn.nobody or self.turn.plan.dry_run:
            return
        away = ", ".join(sorted(order.others or ()))
        if not away:
            raise NotAllowed(f"no other set has a weight to take over from {name!r}; give one a weight first")
        if not order.force:
            raise NeedsForce(
                f"only {away} would take over from {name!r}, and takes no new work: every request would be refused; "
                "make a set `ready` first, or use --force"
            )
        self.turn.takers = None

    def end(self, order: End) -> None:
        p = self.p
        if p.running:
            raise NotAllowed(f"a rollout of {self.turn.plan.set!r} is under way ({p.phase}); abort it first")
        if p.phase is Phase.IDLE and not p.barred:
            raise NotAllowed("no rollout left anything in force: the file's weights count already")
        self.turn.rest_on(order.shares)
        for name in p.barred:
            self.turn.readmit(name, f"`rollout end`{_because(order.why)}", by=order.by)
        if p.phase is Phase.IDLE:
            p.weight = p.base.get(self.turn.plan.set, 0)
            return
        self.turn.idle(f"ended by hand, the file's weights count{_because(order.why)}", by=order.by)

    # The file.

    def edited(self, edit: Edited) -> None:
        p = self.p
        shares = _above_zero(edit.shares)
        if p.plan is None:
            p.base = shares
            return
        if edit.builds:
            p.builds = {**p.builds, **edit.builds}
        if not self.turn.unsettled():
            self.turn.look_at_bars(shares, edit.sets, edit.builds)
        if shares == p.base or self.turn.unsettled():
            return
        self.turn.rest_on(shares)
        p.based_at = self.turn.now
        reason = f"the weights were edited by hand (version {edit.version}); the file's count now"
        if p.phase is Phase.ABORTING:
            # An edit must not keep a sick canary, but may send it away sooner.
            if shares.get(self.turn.plan.set, 0) == 0:
                self.turn.event("edited", reason)
                self.turn.empty()
        elif p.phase in _UNDER_WAY:
            if p.phase is not Phase.PAUSED:
                p.paused_from = p.phase
            p.hands_off = True
            p.beneath = None
            if not self.turn.plan.dry_run:
                self.turn.weigh(shares.get(self.turn.plan.set, 0))
            self.turn.new_stint()
            self.turn.to(Cause.EDIT, Phase.PAUSED, reason)
        elif p.phase is not Phase.IDLE:
            self.turn.idle(reason)

    def gone(self, gone: Gone) -> None:
        p = self.p
        if p.plan is None or not p.running or self.turn.unsettled():
            return
        if not gone.set_left:
            if p.phase in _UNDER_WAY and p.phase is not Phase.PAUSED:
                self.turn.stop("the file's `rollout` section was taken out")
            return
        reason = f"set {p.plan.set!r} left the file"
        if p.phase is not Phase.ABORTING:
            self.turn.to(Cause.ABORT, Phase.ABORTING, reason)
        self.turn.empty()

    # The gate.

    def gate_said(self, said: GateSaid) -> None:
        p = self.p
        if p.phase is not Phase.GATED or said.serial != p.gate_serial:
            return
        if said.go:
            self.turn.event("gate", f"the gate of step {p.step + 1} says go")
            self.turn.enter(p.step, gated=False)
        else:
            p.reason = f"the gate of step {p.step + 1} says not now: {said.detail}"

    # The clock.

    def tick(self, tick: Tick) -> None:
        p = self.p
        passed = 0.0 if p.ticked_at is None else min(MAX_TICK_S, max(0.0, self.turn.now - p.ticked_at))
        p.ticked_at = self.turn.now
        p.loads = dict(tick.loads)
        self.turn.takers = tick.others
        if not p.running:
            return
        p.clock_s += passed
        if p.phase is Phase.ABORTING:
            p.moved_s += passed
            if p.moved_s >= MOVE_EVERY_S:
                self.turn.descend()
            return
        if tick.analysis is not None:
            p.analysis = tick.analysis
            p.marks = marked(p)
        self.turn.remind(passed)
        if tick.control is not None and tick.control.judged and not p.without_control:
            p.baseline = tick.control.without_parts()
        if self._failed():
            assert p.analysis is not None
            self.turn.take_back(p.analysis.reason)
        elif p.phase is not Phase.PAUSED and not tick.takes_work:
            self.turn.stop(f"set {self.turn.plan.set!r} takes no new work")
        elif p.phase is Phase.HOLDING and self.turn.above:
            p.moved_s += passed
            if p.moved_s >= MOVE_EVERY_S:
                self.turn.approach()
                self.turn.perhaps_finish()
        elif p.phase is Phase.HOLDING:
            p.held_s += passed
            if p.held_s >= self.turn.hold_s and not self._passed():
                self.turn.to(
                    Cause.HOLD_OVER, Phase.WAITING, f"the hold of step {p.step + 1} is over; {self._lack()}"
                )
        elif p.phase is Phase.WAITING:
            p.waited_s += passed
            if not self._passed():
                p.reason = f"the hold of step {p.step + 1} is over; {self._lack()}"
                if self.turn.waited_out:
                    self._give_up()
        elif p.phase is Phase.GATED:
            self._ask(passed)
        elif p.phase is Phase.RETURNING:
            p.moved_s += passed
            if p.moved_s >= MOVE_EVERY_S:
                self.turn.ascend()

    def _failed(self) -> bool:
        analysis = self.p.analysis
        return analysis is not None and analysis.verdict is Verdict.FAIL and not self.p.hands_off

    def _passed(self) -> bool:
        """Go on to the next step if the checks passed and traffic still flows."""
        p = self.p
        if p.analysis is None or p.analysis.verdict is not Verdict.PASS or not flowing(p):
            return False
        self.turn.event("passed", f"step {p.step + 1} passed: {p.analysis.reason}")
        self.turn.enter(p.step + 1)
        return True

    def _lack(self) -> str:
        """Say which evidence is missing."""
        analysis = self.p.analysis
        if analysis is None:
            return "nothing was seen yet"
        if analysis.verdict is Verdict.PASS or (analysis.enough and not flowing(self.p)):
            return f"the requests dried up in the last {window_s(self.p):.0f} s"
        return analysis.reason

    def _give_up(self) -> None:
        p = self.p
        no_data = p.analysis is None or not p.analysis.enough or not flowing(p)
        self.turn.undecided(f"step {p.step + 1} stays without a verdict: {self._lack()}", no_data=no_data)

    def _ask(self, passed: float) -> None:
        p = self.p
        p.waited_s += passed
        limit_s = GATE_WAIT_S if self.turn.plan.max_wait_s is None else self.turn.plan.max_wait_s
        if p.waited_s > limit_s:
            self.turn.stop(p.reason or f"the gate of step {p.step + 1} does not answer")
        elif p.waited_s >= p.gate_due_s:
            url = self.turn.plan.steps[p.step].gate
            p.gate_due_s = p.waited_s + GATE_EVERY_S
            p.gate_serial += 1
            if url is not None:
                self.turn.instructions.append(AskGate(url, p.step, p.gate_serial))


def _above_zero(shares: Any) -> dict[str, int]:
    return {name: share for name, share in shares.items() if share > 0}


def _because(why: str) -> str:
    return f": {why}" if why else ""


_HANDLERS: Final[dict[type, Callable[[_Handling, Any], None]]] = {
    Start: _Handling.start,
    Pause: _Handling.pause,
    Resume: _Handling.resume,
    Skip: _Handling.skip,
    Abort: _Handling.abort,
    End: _Handling.end,
    Tick: _Handling.tick,
    Edited: _Handling.edited,
    Gone: _Handling.gone,
    GateSaid: _Handling.gate_said,
}
