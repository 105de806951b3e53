"""Kinds of canaries: what is wrong with each, or what looks wrong and is not. `simulate` plays one, `make release-sim`
many. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from router.rollout.record import Carried, Progress
from router.rollout.world import Temper
from router.routing.plan import AbortWhen, Plan, Step
from router.routing.table import Table

PLAN: Final = Plan(
    "b",
    (Step(500, 300.0), Step(2_500, 300.0), Step(5_000, 300.0), Step(10_000)),
    AbortWhen(min_requests=100),
)
"""5, 25, and 50 % for five minutes each, with the default margins: 2 points of errors, a quarter of latency."""
HELD_PLAN: Final = Plan("b", (*PLAN.steps[:3], Step(10_000, 1_800.0)), PLAN.abort_when)
"""The same, with half an hour at 100 %."""

STRICT_PLAN: Final = Plan(
    "b", PLAN.steps, AbortWhen(min_requests=100, error_rate_over_baseline=0.005, p95_over_baseline=0.1)
)
"""The same with margins of half a point and a tenth of latency."""
CAREFUL_PLAN: Final = Plan("b", (Step(100, 300.0), *PLAN.steps), PLAN.abort_when)
"""The same after a first step of 1 %."""
RETURN_PLAN: Final = Plan("b", PLAN.steps, PLAN.abort_when, return_window_s=86_400.0)


class Right(StrEnum):
    """The right end of a release."""

    ABORT = "abort"
    PROMOTE = "promote"
    NEVER_PROMOTE = "never promote"
    """Abort, or pause for a person."""


class Stage(Protocol):
    """The part of a made-up world (`world.World`, and that of release-sim) that kinds change."""

    plan: Plan
    tempers: dict[str, Temper]
    patience_s: float
    sick_user: bytes | None
    slope_per_h: float
    file: Table
    progress: Progress
    clock: float
    builds: dict[str, str]


class Kind(msgspec.Struct, frozen=True):
    """`prepare` changes the world before the start."""

    name: str
    right: Right
    prepare: Callable[[Stage], None]
    plan: Plan = PLAN

    @property
    def scenario(self) -> str:
        """The name in one word, for a command line."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")


def _canary(**changes: float | bool) -> Callable[[Stage], None]:
    def prepare(world: Stage) -> None:
        for name, value in changes.items():
            setattr(world.tempers[world.plan.set], name, value)

    return prepare


def _hanging(share: float, patience_s: float) -> Callable[[Stage], None]:
    def prepare(world: Stage) -> None:
        world.patience_s = patience_s
        world.tempers[world.plan.set].hang_share = share

    return prepare


def _returning(build: str, error: float) -> Callable[[Stage], None]:
    """The canary carried everything a minute ago, as build 1."""

    def prepare(world: Stage) -> None:
        name = world.plan.set
        url = world.file.sets[name].url
        world.progress.carriers = {name: Carried(10_000, world.clock - 60.0, url, "1")}
        world.builds[name] = build
        world.tempers[name].error = error

    return prepare


def _sick_user(world: Stage) -> None:
    world.sick_user = b"user-heavy"


def _slope(world: Stage) -> None:
    world.slope_per_h = 0.6


def _both(**changes: float) -> Callable[[Stage], None]:
    def prepare(world: Stage) -> None:
        for temper in world.tempers.values():
            for name, value in changes.items():
                setattr(temper, name, value)

    return prepare


KINDS: Final = (
    Kind("all requests fail", Right.ABORT, _canary(error=1.0)),
    Kind("all requests hang", Right.ABORT, _hanging(1.0, 300.0)),
    Kind("10 % hang for 300 s", Right.ABORT, _hanging(0.1, 300.0)),
    Kind("33 % hang for 900 s", Right.ABORT, _hanging(0.33, 900.0)),
    Kind("5 % hang for 300 s", Right.NEVER_PROMOTE, _hanging(0.05, 300.0)),
    Kind("errors +20 points", Right.ABORT, _canary(error=0.205)),
    Kind("errors +5 points", Right.ABORT, _canary(error=0.055)),
    Kind("all requests fail, at 1 %", Right.ABORT, _canary(error=1.0), CAREFUL_PLAN),
    Kind("errors +20 points, at 1 %", Right.ABORT, _canary(error=0.205), CAREFUL_PLAN),
    Kind("p95 +50 %", Right.ABORT, _canary(median_ms=30.0)),
    Kind("errors +1 point, margin 0.5", Right.NEVER_PROMOTE, _canary(error=0.015), STRICT_PLAN),
    Kind("p95 +25 %, margin 10 %", Right.NEVER_PROMOTE, _canary(median_ms=25.0), STRICT_PLAN),
    Kind("a return that fails", Right.ABORT, _returning("1", 1.0), RETURN_PLAN),
    Kind("a new build, taken for a return", Right.ABORT, _returning("2", 1.0), RETURN_PLAN),
    Kind("a healthy return", Right.PROMOTE, _returning("1", 0.005), RETURN_PLAN),
    Kind("healthy", Right.PROMOTE, _canary()),
    Kind("healthy, errors +1 point", Right.PROMOTE, _canary(error=0.015)),
    Kind("healthy, p95 +25 %", Right.PROMOTE, _canary(median_ms=25.0)),
    Kind("healthy, 5 cold starts a step", Right.PROMOTE, _canary(cold_starts=5)),
    Kind("healthy, a key of 5 % fails", Right.PROMOTE, _sick_user),
    Kind("healthy, 100 % held on a slope", Right.PROMOTE, _slope, HELD_PLAN),
    Kind("healthy, errors in bursts", Right.PROMOTE, _both(burst_error=0.2)),
    Kind("healthy, heavy tails", Right.PROMOTE, _both(spread=1.0)),
    Kind("healthy, latency wanders", Right.PROMOTE, _both(wander=0.3)),
)
"""Requests arrive at 20 a second; 0.5 % of them fail at the old set, too."""
