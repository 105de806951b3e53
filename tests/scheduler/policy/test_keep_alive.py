"""Slots come and go as their pool's idle times advise: hours of a cell in virtual time."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from random import Random

import pytest

from scheduler.policy import supply
from scheduler.policy.limits import KeepAlive, Limits
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.policy.house import assert_books_are_empty, pool
from tests.scheduler.policy.world import SimTask, World

HOUR_S = 3_600.0
KEEP_S = 600.0


def world_of(keep_alive: KeepAlive = KeepAlive.LEARNT, max_slots: int = 8) -> World:
    nodes = [NodeFacts("n1", 800, 16_384, max_slots)]
    return World(nodes, Limits(keep_idle_s=KEEP_S, keep_alive=keep_alive))


def every(world: World, period_s: float, times: int, key: PoolKey | None = None) -> list[SimTask]:
    """A task each period; returns them once all have run."""
    tasks: list[SimTask] = []
    for number in range(times):
        world.at(number * period_s, lambda: tasks.append(world.arrive(key or pool(), 1.0)))
    world.run()
    return tasks


def waited_s(task: SimTask) -> float:
    return task.started_at[0] - task.arrived_at


@pytest.mark.parametrize("keep_alive", KeepAlive)
def test_a_pool_that_is_used_every_hour(keep_alive: KeepAlive) -> None:
    world = world_of(keep_alive)
    tasks = every(world, HOUR_S, 12)
    cold = [task for task in tasks if waited_s(task) > 0.0]
    if keep_alive is KeepAlive.FIXED:
        assert len(cold) == 12
    else:
        assert len(cold) <= 3, "a slot was there on the hour"
    assert_books_are_empty(world.cell)
    assert world.cell.wake_at == float("inf")


def test_a_slot_that_is_started_ahead_is_not_there_for_long() -> None:
    begins: dict[str, float] = {}
    there_s = 0.0
    world = world_of()
    start, gone = world._start, world._gone

    def note(slot_id: str) -> None:
        begins[slot_id] = world.now
        start(slot_id)

    def end(slot_id: str) -> object:
        nonlocal there_s
        there_s += world.now - begins[slot_id]
        return gone(slot_id)

    world._start, world._gone = note, end  # type: ignore[method-assign, assignment]
    every(world, HOUR_S, 12)
    assert there_s < 12 * KEEP_S


def test_nobody_else_loses_a_slot_for_one_that_is_started_ahead() -> None:
    world = world_of(max_slots=1)
    hourly, other = pool("acme"), pool("bob")
    for number in range(8):
        world.at(number * HOUR_S, lambda: world.arrive(hourly, 1.0))
    # From now on, another account's slot is idle or busy all the time.
    tasks: list[SimTask] = []
    for number in range(1, 60):
        world.at(7 * HOUR_S + 60.0 * number, lambda: tasks.append(world.arrive(other, 1.0)))
    world.run()
    assert len(tasks) == 59
    assert [waited_s(task) for task in tasks[1:]] == [0.0] * 58


def test_the_idle_times_of_a_forgotten_pool_are_remembered() -> None:
    world = world_of()
    every(world, 30.0, 5)
    assert world.cell.books.pools == {}
    assert len(world.cell.books.remembered) == 1
    world.arrive(pool(), 1.0)
    assert len(world.cell.books.remembered) == 0


def test_pools_that_wait_for_a_start_ahead_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "ASLEEP_MOST", 2)
    world = World([NodeFacts("n1", 800, 16_384, 8)], Limits(keep_idle_s=KEEP_S))
    keys = [pool(image=f"i{number}") for number in range(5)]
    for hour in range(8):
        for number, key in enumerate(keys):
            world.at(hour * HOUR_S + 60.0 * number, partial(world.arrive, key, 1.0))
    most = 0
    for minute in range(9 * 60):
        world.run(60.0 * minute)
        most = max(most, len(world.cell.books.asleep))
    assert most == 2
    world.run()
    assert_books_are_empty(world.cell)


def test_fresh_and_spare_pools_learn_nothing() -> None:
    world = world_of()
    every(world, 30.0, 3, pool(isolation=Isolation.FRESH))
    assert len(world.cell.books.remembered) == 0


def test_slots_of_a_busy_pool_are_looked_at_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    look = supply.Supply.look

    def note(self: supply.Supply, *args: object) -> None:
        looks.append(world.now)
        look(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(supply.Supply, "look", note)
    world = World([NodeFacts("n1", 100_000, 1_000_000, 1_000)], Limits(keep_idle_s=KEEP_S))
    chance = Random(1)
    key = PoolKey("acme", "cat", Resources(100, 512), Isolation.SHARED)
    for _ in range(4_000):
        world.at(chance.uniform(0, 7_200), lambda: world.arrive(key, chance.uniform(1, 20)))
    world.run()
    assert len(looks) < 2_500
    assert all(after >= before for before, after in pairwise(looks))
