"""Histories of a release, played through: `simulate(...)` yields one row per tick for `gcompute router simulate`.

    simulate(scenario="healthy", *, plan=None, shares=None, seed=0, rate=20.0, duration_s=3600.0, tick_s=5.0)
        -> Iterator[Row]

`scenario` is a key of `ABOUT`: a history of `SCENARIOS`, or one of `kinds.KINDS`. `plan` and `shares` (hundredths of a
percent by set) default to an example, or come from a file's table: `table.rollout`, `table.default.shares`. It ends
when the rollout has, or with `duration_s`. Raises `states.NotAllowed` where the plan does not fit the shares,
`RolloutError` for an unknown scenario.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from router.rollout.kinds import KINDS, PLAN
from router.rollout.record import Abort, Pause, Resume
from router.rollout.states import Phase, RolloutError
from router.rollout.world import World
from router.routing.plan import Plan
from router.routing.table import SetState

EXAMPLE: Final = PLAN
EXAMPLE_SHARES: Final = {"a": 10_000, "b": 0}
_ENDED: Final = (Phase.IDLE, Phase.ABORTED, Phase.DONE)


class Row(msgspec.Struct, frozen=True):
    """One tick. Weights in percent; errors (shares of 1) and 95th percentiles of the cohorts in this stint; `health`:
    one word per set; `events`: what happened since the last row, in words."""

    at_s: float
    phase: str
    step: int
    effective: Mapping[str, float]
    requests: Mapping[str, int]
    failed: int
    canary_requests: int
    control_requests: int
    canary_errors: float | None
    control_errors: float | None
    canary_p95_ms: float | None
    control_p95_ms: float | None
    verdict: str
    reason: str
    hold_left_s: float
    health: Mapping[str, str]
    events: tuple[str, ...] = msgspec.field(default=())


Change = Callable[[World], None]
Scenario = Mapping[float, Change]
"""Changes of the world by their time, in seconds since the start."""


def _temper(name: str, **changes: float | bool | None) -> Change:
    def change(world: World) -> None:
        canary = world.plan.set
        stable = [other for other in world.tempers if other != canary]
        for chosen in [canary] if name == "canary" else stable:
            for key, value in changes.items():
                setattr(world.tempers[chosen], key, value)

    return change


def _rate(factor: float) -> Change:
    def change(world: World) -> None:
        world.rate *= factor

    return change


def _jump(seconds: float) -> Change:
    def change(world: World) -> None:
        world.clock += seconds

    return change


def _flapping() -> Scenario:
    return {60.0 * n: _temper("canary", down=n % 2 == 1) for n in range(2, 40)}


def _edited(world: World) -> None:
    canary = world.plan.set
    others = [name for name in world.file.sets if name != canary]
    world.edit({canary: 2_000, **{name: 8_000 if name == others[0] else 0 for name in others}})


def _resumed(world: World) -> None:
    world.happen(Resume("ops"))


SCENARIOS: Final[dict[str, tuple[str, Scenario]]] = {
    "healthy": ("a canary that is as good as the old set", {}),
    "errors": ("a canary that begins to fail after the first step", {400.0: _temper("canary", error=0.2)}),
    "tasks": ("a canary on which tasks fail", {0.0: _temper("canary", task_failed=0.3)}),
    "slow": ("a canary that takes twice as long", {0.0: _temper("canary", median_ms=40.0)}),
    "hangs": ("a canary that stops answering midway", {650.0: _temper("canary", hangs=True)}),
    "dies": ("a canary that dies midway", {650.0: _temper("canary", down=True)}),
    "flaps": ("a canary that comes and goes", _flapping()),
    "stable-dies": (
        "the old set dies for a minute",
        {400.0: _temper("stable", down=True), 460.0: _temper("stable", down=False)},
    ),
    "full": ("a canary without room", {0.0: _temper("canary", room=0)}),
    "quiet": ("requests dry up midway", {450.0: _rate(0.0)}),
    "edited": ("somebody edits the weights midway, later resumes", {400.0: _edited, 600.0: _resumed}),
    "paused": (
        "somebody pauses, and goes on",
        {100.0: lambda world: world.happen(Pause("ops", "lunch")), 700.0: _resumed},
    ),
    "aborted": (
        "somebody aborts at 50 %",
        {800.0: lambda world: world.happen(Abort("ops", "odd answers"))},
    ),
    "drained": (
        "the canary is drained midway",
        {400.0: lambda world: world.set_state(world.plan.set, SetState.DRAIN)},
    ),
    "clock": ("the clock jumps a day ahead, and back", {400.0: _jump(86_400.0), 500.0: _jump(-86_400.0)}),
    "restart": ("the router restarts midway", {400.0: World.restart}),
}
"""Name → what it is about, and what happens when."""
_KINDS: Final = {kind.scenario: kind for kind in KINDS if kind.scenario not in SCENARIOS}
ABOUT: Final = {
    **{name: about for name, (about, _) in SCENARIOS.items()},
    **{name: f"{kind.name}: one release of those that release-sim plays" for name, kind in _KINDS.items()},
}
"""Name → what it is about."""


def simulate(
    scenario: str = "healthy",
    *,
    plan: Plan | None = None,
    shares: Mapping[str, int] | None = None,
    seed: int = 0,
    rate: float = 20.0,
    duration_s: float = 3600.0,
    tick_s: float = 5.0,
) -> Iterator[Row]:
    """Play one history; see the module. `rate` in requests a second."""
    if scenario not in ABOUT:
        raise RolloutError(f"no scenario {scenario!r}; known: {', '.join(ABOUT)}")
    kind = _KINDS.get(scenario)
    plan = plan or (EXAMPLE if kind is None else kind.plan)
    shares = shares or EXAMPLE_SHARES
    # A file may leave its canary out of the default weights: it starts from 0 then.
    shares = {**shares, plan.set: shares.get(plan.set, 0)}
    world = World(plan, shares, seed=seed, rate=rate, tick_s=tick_s)
    if kind is not None:
        kind.prepare(world)
    changes = sorted(SCENARIOS[scenario][1].items()) if kind is None else []
    world.start()
    shown = 0
    while world.at_s < duration_s:
        while changes and changes[0][0] <= world.at_s:
            changes.pop(0)[1](world)
        served = world.tick()
        events = [event for event in world.progress.events if event.serial > shown]
        shown = events[-1].serial if events else shown
        yield _row(world, served.reached, served.failed, tuple(event.text for event in events))
        if world.progress.phase in _ENDED and not changes:
            return


def _row(world: World, reached: Mapping[str, int], failed: int, events: tuple[str, ...]) -> Row:
    progress = world.progress
    canary, control = world.watching.canary, world.watching.control
    analysis = progress.analysis
    step = world.plan.steps[progress.step]

    def errors(judged: int, wrong: int) -> float | None:
        return wrong / judged if judged else None

    def p95_ms(value: float | None) -> float | None:
        return None if value is None else value / 1000

    return Row(
        at_s=world.at_s,
        phase=str(progress.phase),
        step=progress.step + 1,
        effective={name: share / 100 for name, share in world.table.default.shares.items()},
        requests=dict(reached),
        failed=failed,
        canary_requests=canary.judged,
        control_requests=control.judged,
        canary_errors=errors(canary.judged, canary.error),
        control_errors=errors(control.judged, control.error),
        canary_p95_ms=p95_ms(canary.quantile_us(0.95)),
        control_p95_ms=p95_ms(control.quantile_us(0.95)),
        verdict=str(analysis.verdict) if analysis is not None else "",
        reason=progress.reason,
        hold_left_s=max(0.0, step.hold_s - progress.held_s) if progress.phase is Phase.HOLDING else 0.0,
        health={name: world.board.of(name).word(world.at_s) for name in world.file.sets},
        events=events,
    )
