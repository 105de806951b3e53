"""Spare tasks start where they are likely to stay: a full cell does not start and kill them all the time."""

from __future__ import annotations

from random import Random

import pytest

from scheduler.policy.node import NodeFacts
from scheduler.policy.spare_levels import FORGET_S, PAUSE_MOST_S, PAUSE_S, Levels
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Priority, Resources
from tests.scheduler.policy.world import SimTask, World


def pool(account: str, priority: Priority = Priority.NORMAL) -> PoolKey:
    return PoolKey(account, "cat", Resources(100, 64), Isolation.SHARED, (), priority)


SPARE = pool("batch", Priority.SPARE)
NORMAL = pool("acme")


def random_load(world: World, cores: float, until_s: float, seed: int) -> None:
    """Normal tasks of 1 to 3 s at random times, which use so many cores on average."""
    chance, at_s = Random(seed), 0.0
    while at_s < until_s:
        at_s += chance.expovariate(cores / 2.0)
        run_s = chance.uniform(1.0, 3.0)
        world.at(at_s, lambda run_s=run_s: world.arrive(NORMAL, run_s))  # type: ignore[misc]


def finished(tasks: list[SimTask]) -> int:
    return sum(bool(task.ends) for task in tasks)


@pytest.mark.parametrize("seed", range(3))
def test_beside_a_load_that_fills_the_cell_few_give_way(seed: int) -> None:
    world = World([NodeFacts("n1", 2000, 65536, 80)])
    random_load(world, 13.0, 600.0, seed)
    spare = [world.arrive(SPARE, 5.0) for _ in range(1_000)]
    world.run(600.0)
    gave_way = sum(task.gave_way for task in spare)
    # If each started wherever a core is free, eight would give way for each that ends.
    assert finished(spare) > 100
    assert gave_way < 3 * finished(spare)


def test_once_the_others_are_gone_spare_tasks_take_all_cores_again() -> None:
    world = World([NodeFacts("n1", 800, 65536, 32)])
    random_load(world, 7.0, 600.0, 1)
    spare = [world.arrive(SPARE, 20.0) for _ in range(400)]
    world.run(600.0)
    assert world.cell.books.spare_running < 8
    world.run(600.0 + 2 * PAUSE_MOST_S)
    assert world.cell.books.spare_running == 8
    world.run()
    assert finished(spare) == 400


def test_a_spare_task_gets_on_beside_tasks_that_come_in_waves() -> None:
    """One core, wanted for 1 s of every 10: a task of 5 s fits between, so each ends, some time."""
    world = World([NodeFacts("n1", 100, 8192, 8)])
    for second in range(0, 5_000, 10):
        world.at(float(second), lambda: world.arrive(NORMAL, 1.0))
    spare = [world.arrive(SPARE, 5.0) for _ in range(10)]
    world.run(5_000.0)
    assert finished(spare) == 10
    waits = [task.started_at[0] - task.arrived_at for task in world.tasks.values() if task.key == NORMAL]
    assert max(waits) < 0.5


def test_a_task_of_several_cores_needs_as_many_open_levels() -> None:
    levels = Levels(400)
    levels.lost(400, 100, 10.0)
    assert levels.closed_until(0, 300, 10.0) is None
    assert levels.closed_until(0, 400, 10.0) == levels.closed_until(300, 100, 10.0) == 10.0 + PAUSE_S
    assert levels.closed_until(0, 400, 10.0 + PAUSE_S) is None


def test_the_pause_of_a_level_doubles_and_halves() -> None:
    levels, now = Levels(100), 0.0
    pauses = []
    for _ in range(8):
        levels.lost(100, 100, now)
        opens_at = levels.closed_until(0, 100, now)
        assert opens_at is not None
        pauses.append(opens_at - now)
        now = opens_at
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, PAUSE_MOST_S, PAUSE_MOST_S]
    levels.kept(100)
    levels.kept(100)
    levels.lost(100, 100, now)
    assert levels.closed_until(0, 100, now) == now + PAUSE_MOST_S / 2
    levels.lost(100, 100, now + PAUSE_MOST_S + FORGET_S)
    assert (
        levels.closed_until(0, 100, now + PAUSE_MOST_S + FORGET_S) == now + PAUSE_MOST_S + FORGET_S + PAUSE_S
    )
