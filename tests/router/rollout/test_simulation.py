"""Random histories, thousands of them: sets that die, flap, slow down and fill up, weights edited midway, clocks that
jump, restarts, leases that change hands, operators who press every button. What must hold, holds in each.

Each history is made from its seed alone. `GC_HISTORIES` sets how many are played (2,000 unless told).
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import pytest
from msgspec.structs import replace

from router.rollout.kinds import KINDS
from router.rollout.orders import others_of
from router.rollout.record import Abort, End, Happening, Pause, Resume, Skip
from router.rollout.simulate import ABOUT, EXAMPLE, EXAMPLE_SHARES, SCENARIOS, Row, simulate
from router.rollout.states import NotAllowed, Phase, RolloutError
from router.rollout.status import describe
from router.rollout.world import Served, World
from router.routing.plan import AbortWhen, Plan, Step, Undecided
from router.routing.table import WEIGHT_TOTAL, SetState, Table, Weights, key_hash

HISTORIES = int(os.environ.get("GC_HISTORIES", "2000"))
BATCHES = 20
KEYS = [key_hash(b"user-%d" % number) for number in range(120)]
ABORT_BOUND_S = 65.0
SICKNESSES: list[Mapping[str, float | bool]] = [
    {"error": 0.6},
    {"task_failed": 0.7},
    {"median_ms": 400.0},
    {"hangs": True},
    {"down": True},
]


def random_plan(rng: random.Random, **more: object) -> Plan:
    weights = sorted(rng.sample([50, 200, 500, 1_000, 2_500, 5_000, 7_500, 10_000], rng.randint(1, 4)))
    steps = [Step(weight, rng.choice([0.0, 20.0, 60.0])) for weight in weights]
    if rng.random() < 0.3:
        steps.insert(rng.randrange(len(steps)), Step(None))
    gate = "http://gate/" if rng.random() < 0.2 else None
    steps = [step if step.weight is None else Step(step.weight, step.hold_s, gate) for step in steps]
    return Plan(
        "b",
        tuple(steps),
        AbortWhen(min_requests=rng.choice([20, 50])),
        on_no_data=rng.choice(list(Undecided)),
        max_wait_s=rng.choice([30.0, 120.0]),
        return_window_s=rng.choice([0.0, 600.0]),
        dry_run=rng.random() < 0.05,
        **more,  # type: ignore[arg-type]
    )


def random_world(rng: random.Random) -> World:
    shares = rng.choice(
        [
            {"a": 10_000, "b": 0},
            {"a": 9_500, "b": 500},
            {"a": 5_001, "c": 4_999, "b": 0},
            {"a": 3_333, "c": 3_333, "d": 3_334, "b": 0},
        ]
    )
    limits = {name: rng.randint(1, 40) for name in shares if rng.random() < 0.3}
    return World(
        random_plan(rng),
        shares,
        seed=rng.randrange(2**32),
        rate=rng.choice([0.5, 4.0, 8.0]),
        users=rng.choice([20, 2_000]),
        max_inflight=limits,
    )


def disturb(world: World, rng: random.Random) -> None:
    """An event between two ticks."""
    names = list(world.tempers)
    temper = world.tempers[rng.choice(names)]
    what = rng.randrange(15)
    if what == 0:
        temper.down = not temper.down
    elif what == 1:
        temper.error = rng.choice([0.0, 0.02, 0.5, 1.0])
    elif what == 2:
        temper.median_ms = rng.choice([5.0, 20.0, 500.0, 5_000.0])
    elif what == 3:
        temper.room = rng.choice([None, 0, 3])
    elif what == 4:
        temper.hangs = not temper.hangs
    elif what == 5:
        world.clock += rng.choice([-86_400.0, -30.0, 3_600.0, 1e8])
    elif what == 6:
        world.restart()
    elif what == 7:
        parts = [rng.randint(0, 3) for _ in names]
        parts[rng.randrange(len(parts))] += 1
        shares = {name: part * WEIGHT_TOTAL // sum(parts) for name, part in zip(names, parts, strict=True)}
        shares[names[0]] += WEIGHT_TOTAL - sum(shares.values())
        world.edit(shares)
    elif what == 8:
        world.rate = rng.choice([0.0, 1.0, 8.0])
    elif what == 9:
        world.set_state(rng.choice(names), rng.choice(list(SetState)))
    elif what == 10:
        if not world.progress.running:
            world.plan = msgspec.structs.replace(world.plan, dry_run=rng.random() < 0.3)
            world.file = replace(world.file, rollout=world.plan)
            order(world, None)
        else:
            order(world, Abort())
    elif what == 14:
        order(world, End(world.file.default.shares))
    else:
        orders: list[Happening] = [Pause(), Resume(), Resume(), Skip(), Abort(), Abort(at_once=True)]
        order(world, rng.choice(orders))


def order(world: World, happening: Happening | None) -> None:
    """An order that may be refused, and then changes nothing. None: start."""
    before, live = world.progress, world.table
    try:
        if happening is None:
            world.start()
        else:
            world.happen(happening)
    except NotAllowed:
        assert world.progress is before
        return
    old, new = live.default.shares, world.table.default.shares
    if not isinstance(happening, End):
        assert serving(world.table) or not serving(live), "no order leaves nobody to take requests"
    if happening is None and world.plan.dry_run:
        assert new == old, "a dry run touches nothing"
    elif happening is None and new["b"] < old["b"]:
        carried = WEIGHT_TOTAL - old["b"]
        assert WEIGHT_TOTAL - new["b"] <= max(2 * carried, 500), "a start floods nobody"
    elif isinstance(happening, Abort) and world.progress.phase is not Phase.IDLE:
        assert new["b"] <= old["b"]


def serving(live: Table) -> bool:
    """Return True if some set takes new work."""
    return any(live.sets[entry.name].state is SetState.READY for entry in live.default.entries)


@dataclass
class Watcher:
    """Looks at every tick of a history."""

    world: World
    aborting_since: float | None = None
    taken_back: int | None = None
    """The start (`run`) after which b was taken back, while that lasts."""

    def moved(self, before: Table, after: Table) -> None:
        """A change of the rollout's weights moves keys to or from the canary only, and only the way that it goes; the
        operators' edits may do as they like."""
        if before.version != after.version:
            return
        old, new = before.default.shares["b"], after.default.shares["b"]
        if after.default.shares != self.world.file.default.shares:
            assert serving(after) or not serving(before), "nor does a check leave nobody"
        for key in KEYS:
            home, now = before.default.home(key), after.default.home(key)
            assert home is not None
            assert now is not None
            if home.name != now.name:
                assert "b" in (home.name, now.name)
                assert (now.name == "b") == (new > old)

    def reported(self) -> None:
        """The status says what is in force, and a set that was taken back stays away until the file or a person
        readmits it."""
        world, progress = self.world, self.world.progress
        told = describe(progress, world.file, world.table)
        b = world.table.default.shares["b"]
        assert told["now"] == b / 100
        if told["in_force"] is not None:
            assert abs(told["in_force"]["weight"] * 100 - b) <= len(world.table.sets)
        if progress.phase is Phase.ABORTED and not told["dry_run"]:
            assert b == 0, "aborted means that it has nothing"
        if self.taken_back is not None and progress.in_force is not None:
            assert b == 0 or (told["run"] != self.taken_back and not told["dry_run"])
        lasting = (
            progress.in_force is not None and b == 0 and (progress.phase is Phase.ABORTED or told["dry_run"])
        )
        self.taken_back = progress.run if lasting else None

    def look(self, before: Table, served: Served) -> None:
        world = self.world
        live = world.table
        assert sum(live.default.shares.values()) == WEIGHT_TOTAL
        assert all(share >= 0 for share in live.default.shares.values())
        for name, share in before.default.shares.items():
            if share == 0:
                assert name not in served.reached, "weight 0 gets nothing, no retry either"
        force = world.progress.in_force
        if force is None:
            assert live.default.shares == world.file.default.shares
        else:
            assert abs(live.default.shares["b"] - force[1]) <= len(live.sets)
            assert (live.default.shares["b"] == 0) == (force[1] == 0)
        if served.moved_at is not None:
            self.moved(*served.moved_at)
        self.reported()
        others = others_of(world.file, world.progress) or {}
        if world.progress.phase is not Phase.ABORTING or not any(others.values()):
            self.aborting_since = None
        elif self.aborting_since is None:
            self.aborting_since = world.at_s
        else:
            assert world.at_s - self.aborting_since <= ABORT_BOUND_S


@pytest.mark.parametrize("batch", range(BATCHES))
def test_what_must_hold_holds_in_every_history(batch: int) -> None:
    ended: dict[str, int] = {}
    for seed in range(batch, HISTORIES, BATCHES):
        rng = random.Random(seed)
        world = random_world(rng)
        watcher = Watcher(world)
        order(world, None)
        for _ in range(rng.randint(10, 36)):
            if rng.random() < 0.25:
                disturb(world, rng)
            before = world.table
            served = world.tick(leader=rng.random() > 0.05)
            watcher.look(before, served)
        ended[world.progress.phase] = ended.get(world.progress.phase, 0) + 1
    if HISTORIES >= 1_000:
        # The histories are of all kinds, else they show little.
        assert {Phase.DONE, Phase.ABORTED, Phase.PAUSED, Phase.IDLE} <= ended.keys()


@pytest.mark.parametrize("batch", range(4))
def test_a_sick_canary_is_rolled_back_within_a_bound(batch: int) -> None:
    """However sick the canary is, and whenever: the release never finishes, and it is at weight 0 within three minutes
    after its cohort has traffic enough to tell (some two requests a second)."""
    for seed in range(batch, HISTORIES // 20, 4):
        rng = random.Random(seed)
        plan = Plan(
            "b", (Step(2_000, 120.0), Step(5_000, 120.0), Step(8_000, 1e4)), AbortWhen(min_requests=50)
        )
        world = World(plan, {"a": 10_000, "b": 0}, seed=seed, rate=rng.choice([10.0, 15.0]), users=100_000)
        world.start()
        sick_at = rng.choice([0.0, 60.0, 140.0, 300.0])
        while world.at_s < sick_at:
            world.tick()
        for key, value in SICKNESSES[seed % len(SICKNESSES)].items():
            setattr(world.tempers["b"], key, value)
        while world.progress.phase is not Phase.ABORTED:
            world.tick()
            assert world.at_s - sick_at <= 180.0, (seed, world.progress.reason)
        for _ in range(5):
            assert "b" not in world.tick().reached


def test_a_canary_that_sickens_at_the_end_of_a_long_hold_is_found_as_soon() -> None:
    for seed in range(3):
        plan = Plan("b", (Step(2_000, 2_400.0), Step(5_000)), AbortWhen(min_requests=50))
        world = World(plan, {"a": 10_000, "b": 0}, seed=seed, rate=15.0, users=100_000)
        world.start()
        while world.at_s < 2_000.0:
            world.tick()
        world.tempers["b"].error = 0.3
        while world.progress.phase is not Phase.ABORTED:
            world.tick()
            assert world.at_s <= 2_180.0


@pytest.mark.parametrize("batch", range(4))
def test_a_healthy_canary_finishes(batch: int) -> None:
    """The checks look at it every five seconds; of all histories one in twenty may be stopped by chance."""
    stopped = []
    seeds = range(batch, HISTORIES // 20, 4)
    for seed in seeds:
        rng = random.Random(seed)
        plan = Plan(
            "b", (Step(2_000, 60.0), Step(5_000, 60.0), Step(10_000, 30.0)), AbortWhen(min_requests=50)
        )
        world = World(plan, {"a": 10_000, "b": 0}, seed=seed, rate=rng.choice([10.0, 20.0]), users=100_000)
        world.start()
        while world.progress.running and world.at_s < 1_200.0:
            if rng.random() < 0.05:
                world.restart() if rng.random() < 0.5 else setattr(world, "clock", world.clock + 1e5)
            world.tick()
        if world.table.default.shares != {"a": 0, "b": WEIGHT_TOTAL}:
            stopped.append((seed, world.progress.phase, world.progress.reason))
    assert len(stopped) <= max(1, len(seeds) // 20), stopped


@pytest.mark.parametrize(
    ("scenario", "phase", "weight"),
    [
        ("healthy", "done", 100.0),
        ("errors", "aborted", 0.0),
        ("tasks", "aborted", 0.0),
        ("slow", "aborted", 0.0),
        ("hangs", "aborted", 0.0),
        ("dies", "aborted", 0.0),
        ("flaps", "aborted", 0.0),
        ("stable-dies", "done", 100.0),
        ("full", "paused", 5.0),
        ("quiet", "paused", 25.0),
        ("edited", "done", 100.0),
        ("paused", "done", 100.0),
        ("aborted", "aborted", 0.0),
        ("drained", "paused", 25.0),
        ("clock", "done", 100.0),
        ("restart", "done", 100.0),
    ],
)
def test_each_scenario_ends_as_it_says(scenario: str, phase: str, weight: float) -> None:
    last = list(simulate(scenario, duration_s=2_400.0))[-1]
    assert (last.phase, last.effective["b"]) == (phase, weight)


def test_every_scenario_is_tried() -> None:
    marks = test_each_scenario_ends_as_it_says.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(SCENARIOS)


def test_the_same_seed_gives_the_same_rows() -> None:
    def rows(seed: int) -> list[Row]:
        return list(simulate("errors", plan=EXAMPLE, shares=EXAMPLE_SHARES, seed=seed, duration_s=600.0))

    assert rows(7) == rows(7)
    assert rows(7) != rows(8)


def test_a_scenario_that_is_unknown_is_named_with_those_that_are_known() -> None:
    with pytest.raises(RolloutError, match="known: healthy"):
        next(simulate("nonsense"))


def begun() -> World:
    plan = Plan("b", (Step(2_000, 600.0), Step(10_000)), AbortWhen(min_requests=50))
    world = World(plan, {"a": 10_000, "b": 0}, seed=1)
    world.start()
    for _ in range(12):
        world.tick()
    assert world.progress.phase is Phase.HOLDING
    return world


def test_a_plan_that_leaves_the_file_pauses_the_rollout_as_it_does_in_a_router() -> None:
    world = begun()
    world.file = replace(world.file, version=2, rollout=None)
    world.tick()
    assert world.progress.phase is Phase.PAUSED
    assert "`rollout` section was taken out" in world.progress.reason


def test_a_canary_that_leaves_the_file_ends_the_rollout_as_it_does_in_a_router() -> None:
    world = begun()
    sets = {"a": world.file.sets["a"]}
    world.file = replace(world.file, version=2, sets=sets, default=Weights(sets, {"a": 10_000}))
    world.tick()
    assert not world.progress.running
    assert any("left the file" in event.text for event in world.progress.events)
    assert dict(world.table.default.shares) == {"a": 10_000}


def test_a_kind_of_canary_can_be_played_by_its_name() -> None:
    hangs = list(simulate("10-hang-for-300-s", duration_s=1_200.0))[-1]
    assert hangs.phase == "aborted"
    assert "without an answer" in hangs.reason
    back = next(iter(simulate("a-new-build-taken-for-a-return")))
    assert any("step 1 of 4" in event for event in back.events), "a build that nobody knows takes the steps"


def test_a_canary_that_the_default_weights_leave_out_starts_from_nothing() -> None:
    rows = list(simulate("healthy", plan=EXAMPLE, shares={"a": WEIGHT_TOTAL}, duration_s=60.0))
    assert rows[0].phase == "holding"
    assert rows[-1].effective["b"] > 0


def test_each_kind_has_a_name_of_its_own_for_the_command_line() -> None:
    assert len({kind.scenario for kind in KINDS}) == len(KINDS)
    assert all(set(kind.scenario) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for kind in KINDS)
    assert {kind.scenario for kind in KINDS} <= set(ABOUT)
