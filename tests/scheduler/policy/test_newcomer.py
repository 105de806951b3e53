"""A newcomer's first task starts soon, whatever the others send: over cores, slots, shapes, durations and accounts."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.policy.cell import Cell
from scheduler.policy.decisions import Assign, Decision, StartSlot, StopSlot
from scheduler.policy.limits import Limits, number_slots
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.policy.house import assert_books_are_empty

TASK_S = 1.5
START_S = 0.3
ARRIVES_S = 6.0
PATIENCE_S = 1.0
MOST_S = 120.0


@dataclass
class World:
    """Virtual time around the policy: a task runs for `TASK_S`, a slot starts in `START_S`, a tick comes each second.

    A flooder sends a task for each that it got back, so its queues never run dry. A start fails where `fails` says so.
    `task_s`: how long the tasks of an account run, where not `TASK_S`. `fickle`: each second a flooder takes a waiting
    task back and sends another.
    """

    limits: Limits
    fails: frozenset[int] = frozenset()
    task_s: dict[str, float] = field(default_factory=dict)
    fickle: bool = False
    now: float = 0.0
    stops: int = 0
    started_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy = Cell(self.limits, number_slots("s"))
        self._events: list[tuple[float, int, str, str]] = []
        self._serial = count()
        self._starts = count()
        self._task_of: dict[str, str] = {}
        self._floods: dict[str, PoolKey] = {}
        self._tasks = count()

    def flood(self, key: PoolKey, tasks: int) -> None:
        for _ in range(tasks):
            task_id = f"flood-{next(self._tasks)}"
            self._floods[task_id] = key
            self.arrive(task_id, key)

    def arrive(self, task_id: str, key: PoolKey) -> None:
        self._do(self.policy.task_arrived(task_id, key, self.now))

    def run_until(self, until_s: float) -> None:
        while True:
            tick_at = float(int(self.now) + 1)
            if self._events and self._events[0][0] <= min(tick_at, until_s):
                self.now, _, what, slot_id = heapq.heappop(self._events)
                self._happen(what, slot_id)
            elif tick_at <= until_s:
                self.now = tick_at
                self._do(self.policy.wake(self.now))
                if self.fickle and (task_id := next(self._waiting(), None)) is not None:
                    self._leave(task_id)
                    self.flood(self._floods.pop(task_id), 1)
            else:
                self.now = until_s
                return

    def end(self) -> None:
        """All floods end, tasks that wait leave, and time passes until nothing should be left."""
        for task_id in list(self._waiting()):
            self._leave(task_id)
        self._floods.clear()
        self.run_until(self.now + MOST_S)

    def _waiting(self) -> Iterator[str]:
        return (task_id for task_id in self._floods if task_id not in self.started_at)

    def _leave(self, task_id: str) -> None:
        self._do(self.policy.task_left(task_id, self.now))

    def _happen(self, what: str, slot_id: str) -> None:
        if what == "ready":
            self._do(self.policy.slot_ready(slot_id, self.now))
        elif what == "failed":
            self._do(self.policy.slot_gone(slot_id, self.now))
        else:
            task_id = self._task_of.pop(slot_id)
            self._do(self.policy.slot_freed(slot_id, 0, self.now))
            if (key := self._floods.pop(task_id, None)) is not None:
                self.flood(key, 1)

    def _do(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Assign):
                self.started_at[decision.task_id] = self.now
                self._task_of[decision.slot_id] = decision.task_id
                account = self._floods[decision.task_id].account if decision.task_id in self._floods else ""
                self._later(self.task_s.get(account, TASK_S), "ended", decision.slot_id)
            elif isinstance(decision, StartSlot):
                failed = next(self._starts) in self.fails
                self._later(START_S, "failed" if failed else "ready", decision.slot_id)
            elif isinstance(decision, StopSlot):
                self.stops += 1

    def _later(self, seconds: float, what: str, slot_id: str) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._serial), what, slot_id))


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
    world = World(limits, task_s={f"flooder-{n}": task_s[n] for n in range(4)}, fickle=fickle)
    for number, shape, tasks in floods:
        world.flood(pool(f"flooder-{number}", shape), tasks)
    world.run_until(ARRIVES_S)
    for number, shape in enumerate(newcomers):
        world.arrive(f"new-{number}", pool(f"newcomer-{number}", shape))
    accounts = len({number for number, _, _ in floods}) + len(newcomers)
    # A place comes free within a task's end, or once its patience is used up; its slot starts; then each account has
    # one turn before it, of which each may have to wait for room.
    longest_s = max(TASK_S, *task_s)
    bound_s = PATIENCE_S + longest_s + START_S + accounts * (longest_s + PATIENCE_S) + 1.0
    world.run_until(ARRIVES_S + bound_s)
    late = [f"new-{number}" for number in range(len(newcomers)) if f"new-{number}" not in world.started_at]
    assert late == []
    world.end()
    assert world.policy.books.slots_by_state() == {"idle": 0, "starting": 0, "running": 0}
    assert_books_are_empty(world.policy)


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
    world = World(limits, task_s=flooders, fickle=fickle)
    for number, shape, tasks in floods:
        world.flood(pool(f"flooder-{number}", shape), tasks)
    world.run_until(ARRIVES_S)
    for number, isolation in enumerate(isolations):
        world.arrive(f"new-{number}", pool(f"newcomer-{number}", (100, 32, isolation)))
    world.run_until(ARRIVES_S + START_S + max(flooders.values()) + START_S + 0.001)
    assert [number for number in range(len(isolations)) if f"new-{number}" not in world.started_at] == []


def test_a_newcomer_waits_for_one_task_and_one_start() -> None:
    """With room for its task, it is there after the first task that ends and the start of its slot."""
    for places, cores, shape in ((32, 40, CORE), (32, 64, SMALL), (4, 40, CORE)):
        limits = Limits(cpu_percent=100 * cores, memory_mib=8192, max_slots=places, patience_s=PATIENCE_S)
        world = World(limits)
        world.flood(pool("flooder", shape), 3 * places)
        world.run_until(ARRIVES_S)
        world.arrive("new", pool("newcomer", CORE))
        world.run_until(ARRIVES_S + TASK_S + START_S)
        assert world.started_at["new"] <= ARRIVES_S + TASK_S + START_S


@given(st.sets(st.integers(0, 60), max_size=20))
@settings(max_examples=50, deadline=None)
def test_starts_that_fail_keep_no_place(fails: set[int]) -> None:
    """A place that was given up for a slot that then fails is free again: nobody starves once starts succeed."""
    world = World(Limits(cpu_percent=200, max_slots=4, patience_s=PATIENCE_S), frozenset(fails))
    world.flood(pool("flooder", SMALL), 20)
    world.run_until(ARRIVES_S)
    world.arrive("new", pool("newcomer", CORE))
    world.run_until(MOST_S)
    assert "new" in world.started_at
    assert any(at > MOST_S - 2 * TASK_S for task, at in world.started_at.items() if task != "new")


def test_a_newcomer_who_leaves_keeps_no_place() -> None:
    world = World(Limits(cpu_percent=200, max_slots=4, patience_s=PATIENCE_S, keep_idle_s=5.0))
    world.flood(pool("flooder", SMALL), 20)
    world.run_until(ARRIVES_S)
    world.arrive("new", pool("newcomer", CORE))
    world.run_until(ARRIVES_S + 0.1)
    world._do(world.policy.task_left("new", world.now))
    world.run_until(ARRIVES_S + 10.0)
    assert world.policy.books.slots_by_state() == {"idle": 0, "starting": 0, "running": 4}


def test_places_do_not_go_to_and_fro() -> None:
    """Two floods share the places by halves, and then no slot is stopped for the other any more."""
    world = World(Limits(cpu_percent=4000, max_slots=32, patience_s=PATIENCE_S))
    world.flood(pool("first", CORE), 64)
    world.run_until(ARRIVES_S)
    world.flood(pool("second", CORE), 64)
    world.run_until(3 * ARRIVES_S)
    shared = world.stops
    assert shared == 16
    world.run_until(10 * ARRIVES_S)
    assert world.stops == shared


def test_more_accounts_than_places_take_turns() -> None:
    world = World(Limits(cpu_percent=4000, max_slots=4, patience_s=PATIENCE_S))
    for number in range(10):
        world.flood(pool(f"account-{number}", CORE), 3)
    world.run_until(60.0)
    served = {task for task, at in world.started_at.items() if at < 30.0}
    assert len(served) >= 10
    # Each slot that goes is paid for by patience: one stop for each account and second at most.
    assert world.stops <= 10 * 60 / PATIENCE_S
    assert world.stops < len(world.started_at)
