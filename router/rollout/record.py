"""The state of a rollout, as it lies in the state file, and the events that change it. Pure data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from router.counting.tally import Tally
from router.rollout.analysis import Analysis
from router.rollout.bars import Bar
from router.rollout.glide import MAX_MOVES, Load
from router.rollout.sight import Sight
from router.rollout.states import RUNNING, Phase
from router.routing.plan import Plan
from router.routing.table import WEIGHT_TOTAL

MAX_EVENTS: Final = 50
REMIND_S: Final = 600.0
"""How long a pause lasts before its event is written again; then twice as long, and so on."""


class Event(msgspec.Struct, frozen=True):
    """Something that operators want to know. `at`: seconds since the epoch; `serial` counts from 1, without gaps."""

    serial: int
    at: float
    kind: str
    text: str
    set: str = ""
    step: int | None = None
    weight: int = 0
    by: str = ""
    dry_run: bool = False


class Carried(msgspec.Struct, frozen=True):
    """The share that a set was last known to carry, when, at which address, and as which build (empty: untold)."""

    share: int
    at: float
    url: str
    build: str = ""


class Mark(msgspec.Struct, frozen=True):
    """How many requests the cohorts had at a moment of the stint: whether traffic still flows is read from these."""

    clock_s: float
    canary: int
    control: int


class Progress(msgspec.Struct):
    """A rollout's whole state. Weights in hundredths of a percent. Times `…_s` count seconds of ticks, so that a
    clock that jumps, or a router that was down, moves nothing."""

    epoch: int = 0
    """Number of the lease; it grows whenever another process leads. A leader with a smaller one may not write."""
    led_by: str = ""
    """Host and process of the leader."""
    revision: int = 0
    phase: Phase = Phase.IDLE
    plan: Plan | None = None
    base: dict[str, int] = {}
    """The file's default weights (those above 0) that the rollout stands on; others mean: edited by hand."""
    others: dict[str, int] = {}
    """The other sets' part of these, when one of them last had something: they take over from the canary where the
    file gives it all."""
    based_at: float = 0.0
    """When that was last taken from the file."""
    step: int = 0
    stint: int = 0
    """Counts changes of weight: what was seen belongs to one stint."""
    weight: int = 0
    """The canary's, while the rollout has a say; in a dry run, what it would be."""
    beneath: tuple[str, int] | None = msgspec.field(default=None, name="under")
    """Set and weight that the rollout before a dry run left in force. It stays: a dry run touches no weight."""
    hands_off: bool = False
    """Weights were edited by hand: the file's count until someone resumes, skips or aborts."""
    held_s: float = 0.0
    least_hold_s: float = 0.0
    """How long this step is held at least, whatever the plan says."""
    clock_s: float = 0.0
    """Seconds of this stint."""
    waited_s: float = 0.0
    paused_s: float = 0.0
    """How long the pause has lasted, in seconds."""
    remind_s: float = REMIND_S
    """The age, in seconds, at which the pause's event is written again."""
    moved_s: float = 0.0
    """Seconds since the last move of a glide."""
    moves_left: int = MAX_MOVES
    ticked_at: float | None = None
    paused_from: Phase | None = None
    reason: str = ""
    marks: tuple[Mark, ...] = ()
    gate_serial: int = 0
    gate_due_s: float = 0.0
    recent_weights: tuple[tuple[float, int], ...] = msgspec.field(default=(), name="left")
    """The canary's weights of the last minutes: when each one ended, and its value."""
    carriers: dict[str, Carried] = {}
    """Largest share that each set bore lately."""
    urls: dict[str, str] = {}
    builds: dict[str, str] = {}
    """Each set's build, as it last reported it."""
    barred: dict[str, Bar] = {}
    """Sets that an abort took back, and that nobody has readmitted since."""
    loads: dict[str, Load] = {}
    analysis: Analysis | None = None
    last_analysis: Analysis | None = None
    """The analysis that led to an abort, for later readers."""
    baseline: Tally | None = None
    """The last that was seen of a control cohort in this rollout, for steps that leave none."""
    sight: Sight | None = None
    """The requests that operators are shown."""
    events: tuple[Event, ...] = ()
    posted: int = msgspec.field(default=0, name="told")
    """The serial of the last event that was posted."""
    run: int = 0
    """Counts starts."""

    @property
    def in_force(self) -> tuple[str, int] | None:
        """The canary and its weight where a rollout, not the file, decides; else None."""
        if self.plan is None:
            return None
        if self.hands_off or self.phase is Phase.IDLE:
            return (self.plan.set, 0) if self.plan.set in self.barred else None
        return self.beneath if self.plan.dry_run else (self.plan.set, self.weight)

    @property
    def last_event(self) -> int:
        """The serial of the newest event; every move of the phase or of a step is one."""
        return self.events[-1].serial if self.events else 0

    @property
    def running(self) -> bool:
        return self.phase in RUNNING

    @property
    def comparing(self) -> bool:
        """Return True while cohorts are watched."""
        return self.phase in RUNNING and self.phase is not Phase.ABORTING

    @property
    def without_control(self) -> bool:
        """At 100 % there is nobody to compare with."""
        return self.plan is not None and self.in_force == (self.plan.set, WEIGHT_TOTAL)


# What happens: orders of people, the clock, the file, the gate.


class Start(msgspec.Struct, frozen=True):
    """`shares`: the file's default weights; `effective`: those in force; `urls` of all sets, and the `builds` that they
    tell (None: nobody looked); `others` as of `Abort`."""

    plan: Plan
    shares: Mapping[str, int]
    effective: Mapping[str, int]
    urls: Mapping[str, str]
    takes_work: bool = True
    by: str = ""
    why: str = ""
    others: Mapping[str, bool] | None = None
    builds: Mapping[str, str] | None = None


class Pause(msgspec.Struct, frozen=True):
    by: str = ""
    why: str = ""


class Resume(msgspec.Struct, frozen=True):
    """`takes_work` as of `Tick`."""

    by: str = ""
    why: str = ""
    takes_work: bool = True


class Skip(msgspec.Struct, frozen=True):
    """End the step, whatever the evidence; from a gate: go in without its leave. `takes_work` as of `Tick`."""

    by: str = ""
    why: str = ""
    takes_work: bool = True


class Abort(msgspec.Struct, frozen=True):
    """Take the canary's weight back. `at_once`: to weight 0 in one move, even if the old sets cannot bear it.

    `others`: the sets that would take over, and whether each takes new work (`overlay.takers`; None: not known). If
    none does, the order is refused. `force` overrides that, and then the weight also goes in one move.
    """

    by: str = ""
    why: str = ""
    at_once: bool = False
    others: Mapping[str, bool] | None = None
    force: bool = False


class End(msgspec.Struct, frozen=True):
    """The file's weights (`shares`) count again, instead of those that a finished or aborted rollout left."""

    shares: Mapping[str, int]
    by: str = ""
    why: str = ""


class Tick(msgspec.Struct, frozen=True):
    """The leader's clock, about once a second. `takes_work`: the canary is in the table and `ready`. `others` as of
    `Abort`."""

    analysis: Analysis | None = None
    control: Tally | None = None
    loads: Mapping[str, Load] = {}
    takes_work: bool = True
    others: Mapping[str, bool] | None = None


class Edited(msgspec.Struct, frozen=True):
    """The file's default weights and sets as they are now, and the builds that these tell; `version` of the file.
    `sets` None: nobody looked."""

    shares: Mapping[str, int]
    version: int = 0
    sets: Collection[str] | None = None
    builds: Mapping[str, str] = {}


class Gone(msgspec.Struct, frozen=True):
    """The canary is no longer in the file, or the rollout's section is not (`set_left` False)."""

    set_left: bool = True


class GateSaid(msgspec.Struct, frozen=True):
    """The answer to `AskGate` of that serial: go on, or not now, and why."""

    serial: int
    go: bool
    detail: str = ""


Happening = Start | Pause | Resume | Skip | Abort | End | Tick | Edited | Gone | GateSaid


class AskGate(msgspec.Struct, frozen=True):
    """An instruction: ask this URL whether the step may begin."""

    url: str
    step: int
    serial: int
