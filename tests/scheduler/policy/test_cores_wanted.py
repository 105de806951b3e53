"""The cores that tasks want, by CPU features: what an autoscaler is told."""

from __future__ import annotations

from msgspec.structs import replace

from scheduler.policy.cores_wanted import CLASSES_MOST, DRAINED_IN_S, OTHERS, WINDOW_S, WINDOWS, CoresWanted
from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.task import Priority
from tests.scheduler.policy.house import pool
from tests.scheduler.policy.world import World

HOUR_S = 3_600.0
FALLS_AFTER_S = WINDOW_S * (WINDOWS + 1)


def world_of(features: frozenset[str] = frozenset()) -> World:
    # Two cores with plenty of memory, so that memory is worth nothing.
    return World([NodeFacts("n1", 200, 65_536, 16, features)], Limits(max_waiting_account=100_000))


def test_nobody_wants_anything() -> None:
    assert CoresWanted().look(world_of().cell.books, 0.0) == {"": 0.0}


def test_tasks_that_run_and_tasks_that_wait_want_cores() -> None:
    world, wanted = world_of(), CoresWanted()
    for _ in range(7):
        world.arrive(pool(), HOUR_S)
    world.run(10.0)
    assert wanted.look(world.cell.books, world.now) == {"": 7.0}


def test_tasks_that_are_short_share_a_core() -> None:
    world, wanted = world_of(), CoresWanted()
    for _ in range(2_002):
        world.arrive(pool(), 1.0)
    world.run(30.0)
    waiting, task_s = world.cell.waiting, next(iter(world.cell.books.pools.values())).account.task_s
    cores = wanted.look(world.cell.books, world.now)[""]
    assert waiting * task_s / DRAINED_IN_S <= cores - 2 <= waiting * task_s / DRAINED_IN_S + 1
    assert cores < 50


def test_spare_tasks_want_no_cores() -> None:
    world, wanted = world_of(), CoresWanted()
    for _ in range(9):
        world.arrive(replace(pool(), priority=Priority.SPARE), HOUR_S)
    world.run(10.0)
    assert wanted.look(world.cell.books, world.now) == {"": 0.0}


def test_tasks_for_special_machines_are_counted_apart() -> None:
    world, wanted = world_of(frozenset(["avx2", "avx512f"])), CoresWanted()
    world.arrive(pool(), HOUR_S)
    for _ in range(3):
        world.arrive(replace(pool(), cpu_features=("avx2", "avx512f")), HOUR_S)
    world.run(10.0)
    assert wanted.look(world.cell.books, world.now) == {"": 1.0, "avx2,avx512f": 3.0}


def test_tasks_wait_for_a_machine_that_is_lost() -> None:
    world, wanted = world_of(frozenset(["avx2"])), CoresWanted()
    world.join_node(NodeFacts("n2", 200, 65_536, 16))
    world.lose_node("n1")
    world.arrive(replace(pool(), cpu_features=("avx2",)), HOUR_S)
    world.run(10.0)
    assert wanted.look(world.cell.books, world.now)["avx2"] == 1.0


def test_slots_that_cannot_start_want_no_machines() -> None:
    world, wanted = world_of(), CoresWanted()
    world.start_s = None
    world.arrive(pool(), HOUR_S)
    (slot_id,) = world.slots
    world._failed(slot_id)
    assert wanted.look(world.cell.books, world.now) == {"": 0.0}


def test_a_figure_rises_at_once_and_falls_after_five_minutes() -> None:
    world, wanted = world_of(), CoresWanted()
    for _ in range(4):
        world.arrive(pool(), 60.0)
    assert wanted.look(world.cell.books, world.now) == {"": 4.0}
    world.run(150.0)
    assert world.cell.waiting == 0
    assert wanted.look(world.cell.books, world.now) == {"": 4.0}
    world.run(150.0 + FALLS_AFTER_S)
    assert wanted.look(world.cell.books, world.now) == {"": 0.0}


def test_classes_are_bounded_and_those_that_want_nothing_go_first() -> None:
    features = [f"f{number}" for number in range(2 * CLASSES_MOST)]
    world, wanted = world_of(frozenset(features)), CoresWanted()
    for feature in features:
        world.arrive(replace(pool(), cpu_features=(feature,)), HOUR_S)
    found = wanted.look(world.cell.books, world.now)
    assert len(found) == CLASSES_MOST + 1
    assert sum(found.values()) == len(features)
    assert found[OTHERS] > 1.0
    empty = world_of(frozenset(["new"]))
    empty.arrive(replace(pool(), cpu_features=("new",)), HOUR_S)
    assert wanted.look(empty.cell.books, FALLS_AFTER_S)["new"] == 1.0
