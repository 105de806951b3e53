"""A newcomer's first task starts soon, whatever the others send: over cores, slots, shapes, durations and accounts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import SimSlot, SimTask, World

TASK_S = 1.5
START_S = 0.3
ARRIVES_S = 6.0
PATIENCE_S = 1.0
MOST_S = 120.0


class Floods(World):
    """A world of one node whose flooders send a task for each that they got back, so their queues never run dry.

    A start fails where `fails` has its number. `task_s`: how long the tasks of an account run, where not `TASK_S`.
    `fickle`: each second a flooder takes a waiting task back and sends another.
    """

    def __init__(
        self,
        limits: Limits,
        fails: Collection[int] = (),
        task_s: Mapping[str, float] | None = None,
        *,
        fickle: bool = False,
    ) -> None:
        node = NodeFacts("n1", limits.cpu_percent, limits.memory_mib, limits.max_slots)
        super().__init__([node], limits, start_s=START_S)
        self._fails = fails
        self._starts = count()
        self._task_s = task_s or {}
        self._flooding: dict[str, SimTask] = {}
        if fickle:
            self.at(1.0, self._change_minds)

    @property
    def stops(self) -> int:
        return sum(line.startswith("stop") for line in self.log)

    @property
    def started(self) -> dict[str, float]:
        """When each task that has started did so."""
        return {task.id: task.started_at[0] for task in self.tasks.values() if task.started_at}

    def flood(self, key: PoolKey, tasks: int) -> None:
        for _ in range(tasks):
            task = self.arrive(key, self._task_s.get(key.account, TASK_S))
            self._flooding[task.id] = task

    def newcomer(self, task_id: str, key: PoolKey) -> SimTask:
        return self.arrive(key, TASK_S, task_id=task_id)

    def end(self) -> None:
        """All floods end, tasks that wait leave, and time passes until nothing should be left."""
        waiting = [task for task in self._flooding.values() if not task.started_at]
        self._flooding.clear()
        for task in waiting:
            self.leave(task)
        self.run(self.now + MOST_S)

    def _start(self, slot_id: str) -> None:
        if next(self._starts) in self._fails:
            self.at(self.now + START_S, lambda: self._failed(slot_id))
        else:
            super()._start(slot_id)

    def _ran(self, slot: SimSlot, run: int) -> None:
        task = slot.task
        super()._ran(slot, run)
        if task is not None and self._flooding.pop(task.id, None) is not None:
            self.flood(task.key, 1)

    def _change_minds(self) -> None:
        task = next((task for task in self._flooding.values() if not task.started_at), None)
        if task is not None:
            del self._flooding[task.id]
            self.leave(task)
            self.flood(task.key, 1)
            self.at(self.now + 1.0, self._change_minds)


shapes = st.tuples(
    st.sampled_from([1, 6, 50, 100, 200]), st.sampled_from([32, 512, 2048]), st.sampled_from(list(Isolation))
)
floods = st.lists(st.tuples(st.integers(0, 3), shapes, st.integers(1, 60)), min_size=1, max_size=8)
durations = st.lists(st.sampled_from([0.3, TASK_S, 4.0]), min_size=4, max_size=4)


def pool(account: str, shape: tuple[int, int, Isolation]) -> PoolKey:
    cpu_percent, memory_mib, isolation = shape
    return PoolKey(account, "sha256:x", Resources(cpu_percent, memory_mib), isolation)


SMALL = (6, 32, Isolation.SHARED)
CORE = (100, 32, Isolation.SHARED)
SAME = [TASK_S] * 4


@given(
    cores=st.sampled_from([2, 3, 8, 40]),
    places=st.integers(1, 48),
    floods=floods,
    newcomers=st.lists(shapes, min_size=1, max_size=4),
    task_s=durations,
    fickle=st.booleans(),
)
@example(cores=2, places=32, floods=[(0, SMALL, 48)], newcomers=[CORE], task_s=SAME, fickle=False)
@example(cores=40, places=32, floods=[(0, CORE, 48)], newcomers=[CORE], task_s=SAME, fickle=False)
@example(
    cores=2, places=32, floods=[(0, SMALL, 48), (1, SMALL, 48)], newcomers=[CORE], task_s=SAME, fickle=False
)
@example(
    cores=2,
    places=32,
    floods=[(0, (6, 32, Isolation.FRESH), 48)],
    newcomers=[CORE, SMALL],
    task_s=SAME,
    fickle=False,
)
@settings(max_examples=300, deadline=None)
def test_a_newcomer_is_served_in_turn(
    cores: int,
    places: int,
    floods: list[tuple[int, tuple[int, int, Isolation], int]],
    newcomers: list[tuple[int, int, Isolation]],
    task_s: list[float],
    fickle: bool,
) -> None:
    limits = Limits(
        cpu_percent=100 * cores,
        memory_mib=8192,
        max_slots=places,
        patience_s=PATIENCE_S,
        fresh_ahead=2,
        keep_idle_s=5.0,
    )
    world = Floods(limits, task_s={f"flooder-{n}": task_s[n] for n in range(4)}, fickle=fickle)
    for number, shape, tasks in floods:
        world.flood(pool(f"flooder-{number}", shape), tasks)
    world.run(ARRIVES_S)
    for number, shape in enumerate(newcomers):
        world.newcomer(f"new-{number}", pool(f"newcomer-{number}", shape))
    accounts = len({number for number, _, _ in floods}) + len(newcomers)
    # A place comes free within a task's end, or once its patience is used up; its slot starts; then each account has
    # one turn before it, of which each may have to wait for room.
    longest_s = max(TASK_S, *task_s)
    bound_s = PATIENCE_S + longest_s + START_S + accounts * (longest_s + PATIENCE_S) + 1.0
    world.run(ARRIVES_S + bound_s)
    late = [f"new-{number}" for number in range(len(newcomers)) if f"new-{number}" not in world.started]
    assert late == []
    world.end()
    assert world.cell.books.slots_by_state() == {"idle": 0, "starting": 0, "running": 0}
    assert_books_are_empty(world.cell)


@given(
    spare=st.integers(0, 30),
    floods=floods,
    isolations=st.lists(st.sampled_from(list(Isolation)), min_size=1, max_size=4),
    task_s=durations,
    fickle=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_with_room_and_a_place_for_each_account_newcomers_wait_for_one_end_and_one_start(
    spare: int,
    floods: list[tuple[int, tuple[int, int, Isolation], int]],
    isolations: list[Isolation],
    task_s: list[float],
    fickle: bool,
) -> None:
    """Several at once, too. A slot that was just starting when they came has its one task first, if it is fresh."""
    flooders = {f"flooder-{number}": task_s[number] for number, _, _ in floods}
    places = len(flooders) + len(isolations) + spare
    limits = Limits(cpu_percent=1 << 20, memory_mib=1 << 20, max_slots=places, fresh_ahead=2)
    world = Floods(limits, task_s=flooders, fickle=fickle)
    for number, shape, tasks in floods:
        world.flood(pool(f"flooder-{number}", shape), tasks)
    world.run(ARRIVES_S)
    for number, isolation in enumerate(isolations):
        world.newcomer(f"new-{number}", pool(f"newcomer-{number}", (100, 32, isolation)))
    world.run(ARRIVES_S + START_S + max(flooders.values()) + START_S + 0.001)
    assert [number for number in range(len(isolations)) if f"new-{number}" not in world.started] == []


def test_a_newcomer_waits_for_one_task_and_one_start() -> None:
    """With room for its task, it is there after the first task that ends and the start of its slot."""
    for places, cores, shape in ((32, 40, CORE), (32, 64, SMALL), (4, 40, CORE)):
        limits = Limits(cpu_percent=100 * cores, memory_mib=8192, max_slots=places, patience_s=PATIENCE_S)
        world = Floods(limits)
        world.flood(pool("flooder", shape), 3 * places)
        world.run(ARRIVES_S)
        world.newcomer("new", pool("newcomer", CORE))
        world.run(ARRIVES_S + TASK_S + START_S)
        assert world.started["new"] <= ARRIVES_S + TASK_S + START_S


@given(st.sets(st.integers(0, 60), max_size=20))
@settings(max_examples=50, deadline=None)
def test_starts_that_fail_keep_no_place(fails: set[int]) -> None:
    """A place that was given up for a slot that then fails is free again: nobody starves once starts succeed."""
    world = Floods(Limits(cpu_percent=200, max_slots=4, patience_s=PATIENCE_S), frozenset(fails))
    world.flood(pool("flooder", SMALL), 20)
    world.run(ARRIVES_S)
    world.newcomer("new", pool("newcomer", CORE))
    world.run(MOST_S)
    assert "new" in world.started
    assert any(at > MOST_S - 2 * TASK_S for task, at in world.started.items() if task != "new")


def test_a_newcomer_who_leaves_keeps_no_place() -> None:
    world = Floods(Limits(cpu_percent=200, max_slots=4, patience_s=PATIENCE_S, keep_idle_s=5.0))
    world.flood(pool("flooder", SMALL), 20)
    world.run(ARRIVES_S)
    world.newcomer("new", pool("newcomer", CORE))
    world.run(ARRIVES_S + 0.1)
    world.leave(world.tasks["new"])
    world.run(ARRIVES_S + 10.0)
    assert world.cell.books.slots_by_state() == {"idle": 0, "starting": 0, "running": 4}


def test_places_do_not_go_to_and_fro() -> None:
    """Two floods share the places by halves, and then no slot is stopped for the other any more."""
    world = Floods(Limits(cpu_percent=4000, max_slots=32, patience_s=PATIENCE_S))
    world.flood(pool("first", CORE), 64)
    world.run(ARRIVES_S)
    world.flood(pool("second", CORE), 64)
    world.run(3 * ARRIVES_S)
    shared = world.stops
    assert shared == 16
    world.run(10 * ARRIVES_S)
    assert world.stops == shared


def test_places_do_not_go_to_and_fro_between_pools_of_one_account() -> None:
    """Five places for two pools: three and two, and the odd one stays where it is."""
    world = Floods(Limits(cpu_percent=4000, max_slots=5, patience_s=PATIENCE_S))
    first = pool("flooder", CORE)
    second = msgspec.structs.replace(first, image_digest="another")
    world.flood(first, 16)
    world.run(ARRIVES_S)
    world.flood(second, 16)
    world.run(3 * ARRIVES_S)
    shared = world.stops
    assert shared == 2
    world.run(10 * ARRIVES_S)
    assert world.stops == shared


def test_more_accounts_than_places_take_turns() -> None:
    world = Floods(Limits(cpu_percent=4000, max_slots=4, patience_s=PATIENCE_S))
    for number in range(10):
        world.flood(pool(f"account-{number}", CORE), 3)
    world.run(60.0)
    served = {task for task, at in world.started.items() if at < 30.0}
    assert len(served) >= 10
    # Each slot that goes is paid for by patience: one stop for each account and second at most.
    assert world.stops <= 10 * 60 / PATIENCE_S
    assert world.stops < len(world.started)
