"""A rollout played by hand: `Release` holds the progress and the clock, and says what it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import settings

from router.counting.tally import Tally
from router.rollout.analysis import Analysis, analyse
from router.rollout.checks import Verdict
from router.rollout.glide import Load
from router.rollout.progress import advance
from router.rollout.record import AskGate, Happening, Progress, Start, Tick
from router.rollout.states import Phase
from router.routing.plan import Plan, Step

SEEDED = settings(deadline=None, derandomize=True)
"""For property tests: the same examples every time, no timing."""
PASS = Analysis(Verdict.PASS, "every check passed", enough=True)
FAIL = Analysis(Verdict.FAIL, "error rate: surely more than allowed", enough=True)
UNSURE = Analysis(Verdict.INCONCLUSIVE, "error rate: cannot be told yet", enough=True)
FEW = Analysis(Verdict.INCONCLUSIVE, "requests of the canary: 3; min_requests asks for 100")
STEPS = (Step(100, 600.0), Step(1_000, 1_800.0), Step(None), Step(5_000, 3_600.0))
URLS = {"a": "http://a", "b": "http://b", "c": "http://c"}


def plan(*steps: Step, **more: object) -> Plan:
    return Plan("b", steps or STEPS, **more)  # type: ignore[arg-type]


@dataclass
class Release:
    """`requests` a second and cohort arrive, and are judged as `analysis` says."""

    plan: Plan
    shares: dict[str, int] = field(default_factory=lambda: {"a": 10_000, "b": 0})
    progress: Progress = field(default_factory=Progress)
    now: float = 1_000_000.0
    asked: list[AskGate] = field(default_factory=list)
    requests: float = 10.0
    seen: float = 0.0
    stint: int = -1
    loads: Mapping[str, Load] = field(default_factory=dict)
    takes_work: bool = True
    others: Mapping[str, bool] | None = None

    def happen(self, happening: Happening) -> None:
        self.progress, asked = advance(self.progress, happening, self.now)
        self.asked += asked

    def start(self) -> Release:
        force = self.progress.in_force
        effective = dict(self.shares)
        if force is not None:
            effective = {name: 10_000 - force[1] if name != force[0] else force[1] for name in ("a", "b")}
        self.happen(Start(self.plan, self.shares, effective, URLS))
        return self

    def tick(self, analysis: Analysis | None = PASS, passed_s: float = 1.0) -> None:
        self.now += passed_s
        if self.progress.stint != self.stint:
            self.stint, self.seen = self.progress.stint, 0.0
        self.seen += self.requests * passed_s
        if analysis is not None:
            analysis = Analysis(
                analysis.verdict, analysis.reason, (), int(self.seen), int(self.seen), analysis.enough
            )
        self.happen(Tick(analysis, None, self.loads, self.takes_work, self.others))

    def run(self, seconds: float, analysis: Analysis | None = PASS) -> None:
        for _ in range(int(seconds)):
            self.tick(analysis)

    def run_until(self, phase: Phase, within_s: float, analysis: Analysis | None = PASS) -> float:
        """Tick until the phase; returns the seconds it took. Fails when it takes longer."""
        for passed in range(int(within_s) + 1):
            if self.phase == phase:
                return float(passed)
            self.tick(analysis)
        raise AssertionError(f"still {self.phase} after {within_s:g} s: {self.progress.reason}")

    @property
    def phase(self) -> str:
        """The phase as text, because mypy takes an enumeration's property for a constant."""
        return self.progress.phase

    @property
    def weight(self) -> int:
        return self.progress.weight

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.progress.events]


def judged(plan: Plan, canary: Tally, control: Tally) -> Analysis:
    return analyse(plan, canary, control)
