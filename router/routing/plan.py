"""Plan of a rollout: its steps, and when it stops. Pure data, kept whole in the state file."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

import msgspec

MIN_WAIT_S: Final = 300.0
"""A step waits at least this long after its hold for evidence, unless the plan says otherwise."""


class Undecided(StrEnum):
    """Fate of a rollout that has no verdict in time."""

    PAUSE = "pause"
    ABORT = "abort"


class CheckName(StrEnum):
    """The comparisons. `async`: how asynchronous tasks end, by the sets' own counts. `room`, how often a set said that
    it is full, never aborts: it only holds back. `parts`: errors and failed tasks of one image or account, tasks that
    time out, tasks that run out of memory; it never holds back."""

    ERRORS = "errors"
    TASKS = "tasks"
    ASYNC = "async"
    LATENCY = "latency"
    ROOM = "room"
    PARTS = "parts"


ABORTING_CHECKS: Final = (
    CheckName.ERRORS,
    CheckName.TASKS,
    CheckName.ASYNC,
    CheckName.LATENCY,
    CheckName.PARTS,
)


class PartName(StrEnum):
    """Parts of the traffic that are also judged by themselves."""

    IMAGE = "image"
    ACCOUNT = "account"


class Step(msgspec.Struct, frozen=True):
    """`weight` in hundredths of a percent; None: a pause until someone resumes. `gate`: a URL asked before it."""

    weight: int | None
    hold_s: float = 0.0
    gate: str | None = None


class AbortWhen(msgspec.Struct, frozen=True):
    """Limits. Rates are differences in shares (0.02: two points), latency a ratio (0.25: a quarter more). None:
    not judged. `confidence`: 1 − the chance that an equal canary is aborted anywhere in the rollout."""

    min_requests: int = 100
    error_rate_over_baseline: float | None = 0.02
    task_failures_over_baseline: float | None = 0.05
    p95_over_baseline: float | None = 0.25
    confidence: float = 0.95
    async_failures_over_baseline: float | None = 0.05


class Plan(msgspec.Struct, frozen=True):
    """One `rollout` section. `dry_run`: no weight is touched; `report_only`: these checks never decide."""

    set: str
    steps: tuple[Step, ...]
    abort_when: AbortWhen = AbortWhen()
    on_no_data: Undecided = Undecided.PAUSE
    """Fate of the release if there are too few requests to judge."""
    on_inconclusive: Undecided = Undecided.PAUSE
    """Fate of the release if there are enough requests, and they leave the verdict open."""
    max_requests: int | None = None
    """Number of the canary's requests at a step after which nobody waits for a verdict any longer."""
    dry_run: bool = False
    report_only: tuple[CheckName, ...] = ()
    max_wait_s: float | None = None
    return_window_s: float = 0.0
    """A set that carried the final share this recently gets it back without the steps; 0: never."""
    judge_by: tuple[PartName, ...] = (PartName.IMAGE,)
    shared_addresses: tuple[str, ...] = ()
    """Networks of addresses that stand for many clients, such as gateways: only their sticky keys are capped."""
    events: str | None = None
    """A URL to which every event is posted as JSON."""

    @property
    def weighted_steps(self) -> int:
        return sum(step.weight is not None for step in self.steps)

    @property
    def final_weight(self) -> int:
        """The weight at which the rollout ends, in hundredths of a percent."""
        return next((step.weight for step in reversed(self.steps) if step.weight is not None), 0)

    def wait_s(self, step: int) -> float:
        """How long a step may wait after its hold, for evidence or its successor's gate."""
        if self.max_wait_s is not None:
            return self.max_wait_s
        return max(MIN_WAIT_S, 2 * self.steps[step].hold_s)

    @property
    def digest(self) -> str:
        """Short, the same for equal plans."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]
