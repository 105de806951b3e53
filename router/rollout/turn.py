"""One turn of the rollout's state machine: the moves that its handlers are made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from router.table import WEIGHT_TOTAL

from .glide import MAX_MOVES, WARM_S, next_weight
from .plan import Plan
from .record import MAX_EVENTS, AskGate, Carried, Event, Progress
from .states import Cause, NotAllowed, Phase, check

NEARLY = 0.8
"""A set that carried so much of its largest share still counts as carrying it."""


class Turn:
    """One call of `advance`; `p` is its own copy, whose containers are replaced, never changed."""

    def __init__(self, progress: Progress, now: float) -> None:
        self.p = progress
        self.now = now
        self.instructions: list[AskGate] = []

    @property
    def plan(self) -> Plan:
        if self.p.plan is None:
            raise NotAllowed("there is no rollout; start one first")
        return self.p.plan

    # Moves.

    def enter(self, index: int, *, gated: bool = True, cause: Cause | None = None) -> None:
        p = self.p
        p.waited_s = p.gate_due_s = 0.0
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
            self.weigh(step.weight)
            self.new_stint()
            p.held_s = 0.0
            told = f"step {index + 1} of {len(self.plan.steps)}: {step.weight / 100:g} %"
            if step.hold_s:
                told += f" for {step.hold_s:g} s"
            self.to(cause or Cause.ENTER, Phase.HOLDING, told)
            if step.hold_s == 0 and index == len(self.plan.steps) - 1:
                self.finish()

    def finish(self) -> None:
        p = self.p
        name = self.plan.set
        told = f"done: {name} has {p.weight / 100:g} %; write that into the file"
        if self.plan.dry_run:
            told = "done: this was a dry run, no weight was touched"
        self.to(Cause.FINISH, Phase.DONE, told)

    def stop(self, told: str, by: str = "") -> None:
        self.p.paused_from = self.p.phase
        self.to(Cause.STOP, Phase.PAUSED, told, by=by)

    def roll_back(self, told: str, by: str = "", *, at_once: bool = False) -> None:
        p = self.p
        p.hands_off = False
        p.moves_left = MAX_MOVES
        p.last_analysis = p.analysis or p.last_analysis
        self.to(Cause.ABORT, Phase.ABORTING, told, by=by)
        if at_once or self.plan.dry_run:
            self.empty()
        else:
            self.descend()

    def empty(self) -> None:
        """The end of an abort; what it was for stays the reason."""
        self.weigh(0)
        self.p.phase = check(self.p.phase, Cause.EMPTY, Phase.ABORTED)
        told = (
            "was a dry run, no weight was touched"
            if self.plan.dry_run
            else f"{self.plan.set} has nothing now"
        )
        self.event("aborted", told)

    def descend(self) -> None:
        """One move of an abort."""
        p = self.p
        lately = [weight for at, weight in p.left if 0.0 <= self.now - at <= WARM_S]
        growing = [
            load for name, load in p.loads.items() if name != self.plan.set and p.base.get(name, 0) > 0
        ]
        warm = WEIGHT_TOTAL - min([p.weight, *lately])
        self.weigh(next_weight(p.weight, 0, growing=growing, warm=warm, moves_left=p.moves_left))
        p.moves_left -= 1
        p.moved_s = 0.0
        if p.weight == 0:
            self.empty()

    def ascend(self) -> None:
        """One move of a return."""
        p = self.p
        growing = [load for name, load in p.loads.items() if name == self.plan.set]
        final = self.plan.final_weight
        self.weigh(next_weight(p.weight, final, growing=growing, moves_left=p.moves_left))
        p.moves_left -= 1
        p.moved_s = 0.0
        if p.weight == final:
            self.finish()

    def weigh(self, weight: int) -> None:
        p = self.p
        if weight != p.weight:
            if not self.plan.dry_run:
                self.remember(self.shares())
            recent = [(at, old) for at, old in p.left if 0.0 <= self.now - at <= WARM_S]
            p.left = (*recent[-2 * MAX_MOVES :], (self.now, p.weight))
            p.weight = weight
            self.new_stint()

    def new_stint(self) -> None:
        p = self.p
        p.stint += 1
        p.clock_s = 0.0
        p.marks = ()
        p.analysis = None

    def to(self, cause: Cause, phase: Phase, told: str, by: str = "") -> None:
        self.p.phase = check(self.p.phase, cause, phase)
        self.p.reason = told
        self.event(str(phase), told, by=by)

    def event(self, kind: str, text: str, by: str = "") -> None:
        p = self.p
        plan = self.plan
        serial = p.events[-1].serial + 1 if p.events else 1
        event = Event(serial, self.now, kind, text, plan.set, p.step, p.weight, by, plan.dry_run)
        p.events = (*p.events[-(MAX_EVENTS - 1) :], event)

    def shares(self) -> dict[str, int]:
        """What each set carries now, by the rollout's account."""
        p = self.p
        others = {name: share for name, share in p.base.items() if name != self.plan.set}
        total = sum(others.values()) or 1
        shares = {name: share * (WEIGHT_TOTAL - p.weight) // total for name, share in others.items()}
        return {**shares, self.plan.set: p.weight}

    def remember(self, shares: Mapping[str, int]) -> None:
        """Keep what each set is known to bear, for a later return to it."""
        p = self.p
        carriers = dict(p.carriers)
        for name, share in shares.items():
            known = carriers.get(name)
            url = p.urls.get(name, "")
            if share > 0 and (known is None or known.url != url or share >= NEARLY * known.share):
                carriers[name] = Carried(share, self.now, url)
        p.carriers = {name: known for name, known in carriers.items() if name in p.urls}
