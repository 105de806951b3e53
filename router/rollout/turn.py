"""One turn of the rollout's state machine: the moves that its handlers are made of. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from router.rollout.bars import Bar, lifted
from router.rollout.glide import MAX_MOVES, MOVE_EVERY_S, WARM_S, next_weight
from router.rollout.record import MAX_EVENTS, REMIND_S, AskGate, Carried, Event, Progress
from router.rollout.states import Cause, NotAllowed, Phase, check
from router.routing.plan import Plan, Undecided
from router.routing.table import WEIGHT_TOTAL

NEARLY: Final = 0.8
"""Share of its largest share from which a set still counts as carrying it."""

RETURN_HOLD_S: Final = 60.0
"""Shortest time, in seconds, for which a set that got its weight back without the steps is judged before the rollout is
done."""
REMIND_MOST_S: Final = 86_400.0
"""The event of a pause is written once a day at least."""
SETTLE_S: Final = 3.0
"""Time in seconds after a start or an edit in which a file with other weights is not believed yet."""


class Turn:
    """One call of `advance`; `p` is its own copy, whose containers are replaced, never changed."""

    def __init__(self, progress: Progress, now: float) -> None:
        self.p = progress
        self.now = now
        self.instructions: list[AskGate] = []
        self.takers: Mapping[str, bool] | None = None
        """The sets that would take over from the canary, and whether each takes new work; None: not known."""

    @property
    def plan(self) -> Plan:
        if self.p.plan is None:
            raise NotAllowed("there is no rollout; start one first")
        return self.p.plan

    # Moves.

    def enter(self, index: int, *, gated: bool = True, cause: Cause | None = None) -> None:
        p = self.p
        p.waited_s = p.gate_due_s = p.least_hold_s = 0.0
        p.hands_off = False
        if index >= len(self.plan.steps):
            self.finish()
            return
        p.step = index
        step = self.plan.steps[index]
        if step.weight is None:
            p.paused_from = None
            self.to(
                cause or Cause.STOP, Phase.PAUSED, f"step {index + 1} is a pause: resume when you are content"
            )
        elif gated and step.gate is not None:
            self.to(cause or Cause.ASK, Phase.GATED, f"asking the gate of step {index + 1}")
        else:
            p.held_s = 0.0
            p.moves_left = MAX_MOVES
            before = p.weight
            self.approach()
            self.new_stint()
            reason = f"step {index + 1} of {len(self.plan.steps)}: {step.weight / 100:g} %"
            if step.hold_s:
                reason += f" for {step.hold_s:g} s"
            if self.above:
                reason += f"; down from {before / 100:g} % move by move, so that the other sets can bear it"
            self.to(cause or Cause.ENTER, Phase.HOLDING, reason)
            self.perhaps_finish()

    @property
    def above(self) -> bool:
        """On the way down to the step's weight: its hold has not begun."""
        target = self.plan.steps[self.p.step].weight
        return target is not None and self.p.weight > target

    def approach(self) -> None:
        """Make one move to the step's weight: up at once, down as the other sets can carry it."""
        target = self.plan.steps[self.p.step].weight
        assert target is not None
        if self.above and not self.plan.dry_run:
            self.lower(target)
        else:
            self.weigh(target)

    def perhaps_finish(self) -> None:
        """The last step without a hold is the end."""
        index = self.p.step
        if self.plan.steps[index].hold_s == 0 and index == len(self.plan.steps) - 1 and not self.above:
            self.finish()

    def finish(self) -> None:
        p = self.p
        name = self.plan.set
        reason = f"done: {name} has {p.weight / 100:g} %; write that into the file"
        if self.plan.dry_run:
            reason = "done: this was a dry run, no weight was touched" + self._still()
        self.to(Cause.FINISH, Phase.DONE, reason)

    def stop(self, reason: str, by: str = "") -> None:
        self.p.paused_from = self.p.phase
        self.to(Cause.STOP, Phase.PAUSED, reason, by=by)

    def roll_back(self, reason: str, by: str = "", *, at_once: bool = False) -> None:
        p = self.p
        p.hands_off = False
        p.moves_left = MAX_MOVES
        p.last_analysis = p.analysis or p.last_analysis
        self.to(Cause.ABORT, Phase.ABORTING, reason, by=by)
        if at_once or self.plan.dry_run:
            self.empty()
        else:
            self.descend()

    def empty(self) -> None:
        """The end of an abort; its cause stays the reason."""
        p = self.p
        self.weigh(0)
        p.phase = check(p.phase, Cause.EMPTY, Phase.ABORTED)
        name = self.plan.set
        reason = f"{name} has nothing now"
        if self.plan.dry_run:
            reason = "was a dry run, no weight was touched"
        else:
            share = p.base.get(name, 0)
            bar = Bar(self.now, p.reason, share, p.builds.get(name, ""))
            p.barred = {**p.barred, name: bar}
            reason += ", by weight or rule, until it tells another build, or somebody readmits it"
            if share:
                reason += f"; the file still says {share / 100:g} %: write 0 into it"
        self.event("aborted", reason + self._still())

    def readmit(self, name: str, why: str, by: str = "") -> None:
        """Lift the bar of a set, if it has one."""
        p = self.p
        if name in p.barred:
            p.barred = {other: bar for other, bar in p.barred.items() if other != name}
            self.event("readmitted", f"{name} may get requests again: {why}", by=by)

    def look_at_bars(
        self, shares: Mapping[str, int], sets: Collection[str] | None, builds: Mapping[str, str]
    ) -> None:
        """Lift the bars that the file or a new build lift, and remember the file's weights for the others."""
        p = self.p
        taken_back = p.phase is Phase.ABORTED and self.plan.set in p.barred
        known = p.barred if sets is None else {*sets, self.plan.set}
        p.barred = {name: bar for name, bar in p.barred.items() if name in known}
        for name, bar in p.barred.items():
            if why := lifted(name, bar, shares, builds):
                self.readmit(name, why)
            elif bar.share != shares.get(name, 0):
                p.barred = {**p.barred, name: msgspec.structs.replace(bar, share=shares.get(name, 0))}
        if taken_back and self.plan.set not in p.barred:
            self.rest_on(shares)
            self.idle(f"{self.plan.set} was readmitted, the file's weights count")

    def _still(self) -> str:
        """Name the weight that a dry run leaves as it found it."""
        if not self.plan.dry_run or self.p.beneath is None:
            return ""
        name, weight = self.p.beneath
        return f"; {name} has {weight / 100:g} % still, from the rollout before"

    def descend(self) -> None:
        """One move of an abort; none while nobody would take over."""
        p = self.p
        if self.nobody:
            p.moved_s = 0.0
            return
        self.lower(0)
        if p.weight == 0:
            self.empty()

    def lower(self, target: int) -> None:
        """Make one move down to a weight, as the others can carry it."""
        p = self.p
        lately = [weight for at, weight in p.recent_weights if 0.0 <= self.now - at <= WARM_S]
        others = self.others()
        growing = [load for name, load in p.loads.items() if name in others]
        warm = WEIGHT_TOTAL - min([p.weight, *lately])
        self.weigh(next_weight(p.weight, target, growing=growing, warm=warm, moves_left=p.moves_left))
        p.moves_left -= 1
        p.moved_s = 0.0

    @property
    def nobody(self) -> bool:
        """No other set would take new work if the canary had nothing."""
        return self.takers is not None and not any(self.takers.values())

    def take_back(self, reason: str) -> None:
        """Abort because of what was seen. If no set would take over, pause instead: a sick set is better than none."""
        p = self.p
        if not self.nobody or self.plan.dry_run:
            self.roll_back(reason)
            return
        stuck = (
            f"{self.plan.set} should be taken back, but no other set takes new work, so it keeps its weight; "
            "make another set `ready`"
        )
        if p.phase is not Phase.PAUSED:
            self.event("stuck", reason)
            self.stop(stuck)
        elif p.reason != stuck:
            p.reason = stuck
            self.event("stuck", f"{reason}; {stuck}")

    def ascend(self) -> None:
        """One move of a return."""
        p = self.p
        growing = [load for name, load in p.loads.items() if name == self.plan.set]
        final = self.plan.final_weight
        weight = next_weight(p.weight, final, growing=growing, moves_left=p.moves_left)
        p.moved_s = 0.0
        if weight == WEIGHT_TOTAL and not self.plan.dry_run and not (p.analysis and p.analysis.enough):
            # At 100 % nobody is left to compare with.
            self._wait_for_evidence()
            return
        self.weigh(weight, same_stint=True)
        p.moves_left -= 1
        if p.weight == final:
            p.held_s = p.waited_s = 0.0
            p.least_hold_s = RETURN_HOLD_S
            self.to(
                Cause.ENTER,
                Phase.HOLDING,
                f"{self.plan.set} is back at {final / 100:g} %, held for {self.hold_s:g} s before it is done",
            )

    def _wait_for_evidence(self) -> None:
        """Hold a return back before its last move, for a while."""
        p = self.p
        p.waited_s += MOVE_EVERY_S
        lack = p.analysis.reason if p.analysis is not None else "nothing was seen yet"
        p.reason = f"back at {p.weight / 100:g} %; goes on when it can be judged: {lack}"
        if self.waited_out:
            self.undecided(f"the return stays without a verdict: {lack}", no_data=True)

    @property
    def waited_out(self) -> bool:
        """The wait for a verdict is over, by its time or by the number of requests."""
        p, most = self.p, self.plan.max_requests
        seen = 0 if p.analysis is None else p.analysis.canary_requests
        return p.waited_s >= self.plan.wait_s(p.step) or (most is not None and seen >= most)

    def undecided(self, reason: str, *, no_data: bool) -> None:
        """Pause or abort, as the plan says. `no_data`: there were too few requests to judge."""
        fate = self.plan.on_no_data if no_data else self.plan.on_inconclusive
        if fate is Undecided.ABORT:
            self.take_back(reason)
        else:
            self.stop(reason)

    def remind(self, passed: float) -> None:
        """Write the event of a pause again, ever more rarely, so that nobody forgets it."""
        p = self.p
        if p.phase is not Phase.PAUSED:
            return
        p.paused_s += passed
        if p.paused_s >= p.remind_s:
            p.remind_s += min(p.remind_s, REMIND_MOST_S)
            minutes = round(p.paused_s / 60)
            span = f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
            self.event("still paused", f"paused for {span}: {p.reason}")

    @property
    def hold_s(self) -> float:
        """How long the step is held."""
        return max(self.plan.steps[self.p.step].hold_s, self.p.least_hold_s)

    def weigh(self, weight: int, *, same_stint: bool = False) -> None:
        """Change the canary's weight. `same_stint`: what was seen so far still counts, as the moves of a return are too
        short to be judged by themselves."""
        p = self.p
        if weight != p.weight:
            if not self.plan.dry_run:
                self.remember(self.shares())
            recent = [(at, old) for at, old in p.recent_weights if 0.0 <= self.now - at <= WARM_S]
            p.recent_weights = (*recent[-2 * MAX_MOVES :], (self.now, p.weight))
            p.weight = weight
            if not same_stint:
                self.new_stint()

    def new_stint(self) -> None:
        p = self.p
        p.stint += 1
        p.clock_s = 0.0
        p.marks = ()
        p.analysis = None

    def to(self, cause: Cause, phase: Phase, reason: str, by: str = "") -> None:
        self.p.phase = check(self.p.phase, cause, phase)
        self.p.reason = reason
        self.p.paused_s, self.p.remind_s = 0.0, REMIND_S
        self.event(str(phase), reason, by=by)

    def event(self, kind: str, text: str, by: str = "") -> None:
        p = self.p
        plan = self.plan
        serial = p.events[-1].serial + 1 if p.events else 1
        event = Event(serial, self.now, kind, text, plan.set, p.step, p.weight, by, plan.dry_run)
        p.events = (*p.events[-(MAX_EVENTS - 1) :], event)

    def idle(self, reason: str, by: str = "") -> None:
        """Let the file's weights count, except that of a set that was taken back."""
        self.p.beneath = None
        name = self.plan.set
        self.p.weight = 0 if name in self.p.barred else self.p.base.get(name, 0)
        if name in self.p.barred:
            reason += (
                f"; {name} still gets nothing: `rollout end`, a start, or another weight for it readmits it"
            )
        self.to(Cause.EDIT, Phase.IDLE, reason, by=by)

    def unsettled(self) -> bool:
        """Return True if the file may be older than what the rollout stands on: a leader may not have seen the newest
        one yet."""
        return self.p.running and 0.0 <= self.now - self.p.based_at < SETTLE_S

    def rest_on(self, shares: Mapping[str, int]) -> None:
        """The file's weights from now on."""
        p = self.p
        p.base = {name: share for name, share in shares.items() if share > 0}
        others = {name: share for name, share in p.base.items() if name != self.plan.set}
        if others:
            p.others = others

    def others(self) -> dict[str, int]:
        """Return the shares of the other sets, by the file or as they last were."""
        others = {name: share for name, share in self.p.base.items() if name != self.plan.set}
        return others or self.p.others

    def shares(self) -> dict[str, int]:
        """The share that each set carries now, by the rollout's account."""
        p = self.p
        others = self.others()
        total = sum(others.values()) or 1
        shares = {name: share * (WEIGHT_TOTAL - p.weight) // total for name, share in others.items()}
        return {**shares, self.plan.set: p.weight}

    def remember(self, shares: Mapping[str, int]) -> None:
        """Remember the share that each set is known to carry, for a later return to it."""
        p = self.p
        carriers = dict(p.carriers)
        for name, share in shares.items():
            known = carriers.get(name)
            url = p.urls.get(name, "")
            if share > 0 and (
                known is None
                or known.url != url
                or known.build != p.builds.get(name, "")
                or share >= NEARLY * known.share
            ):
                carriers[name] = Carried(share, self.now, url, p.builds.get(name, ""))
        p.carriers = {name: known for name, known in carriers.items() if name in p.urls}
