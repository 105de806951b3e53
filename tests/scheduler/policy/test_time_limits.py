"""How long a task may run, in virtual time: the cell says when its time is up, and no timer outlives its run."""

from __future__ import annotations

from random import Random

from scheduler.policy.cell import Cell
from scheduler.policy.decisions import Assign, Decision, StartSlot, TimeUp
from scheduler.policy.limits import Limits, number_slots
from scheduler.policy.node import NodeFacts
from scheduler.policy.timers import LENGTHS_SWEPT_AT
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import World

CAT = PoolKey("acme", "sha256:cat", Resources(100, 512), Isolation.SHARED)


def test_a_task_that_runs_too_long_is_killed_on_time() -> None:
    world = World([NodeFacts("n1", 400, 16_384, 8)], start_s=0.5, kill_s=0.01)
    slow = world.arrive(CAT, 100.0, limit_s=30.0)
    prompt = world.arrive(CAT, 29.9, limit_s=30.0)
    world.run()
    assert (slow.ends, prompt.ends) == (["timed out"], ["succeeded"])
    # Its time begins with its program, not with the wait for its slot.
    assert slow.ended_at == 0.5 + 30.0 + 0.01
    assert_books_are_empty(world.cell)


def test_each_task_of_a_slot_has_its_own_time() -> None:
    world = World([NodeFacts("n1", 100, 512, 1)], start_s=0.0)
    tasks = [world.arrive(CAT, 20.0, limit_s=30.0) for _ in range(4)]
    world.run()
    assert [task.ends for task in tasks] == [["succeeded"]] * 4
    assert tasks[-1].ended_at == 80.0


def test_time_runs_out_in_order_whatever_the_limits() -> None:
    world = World([NodeFacts("n1", 20_000, 200 * 512, 200)], start_s=0.0, kill_s=0.0)
    chance = Random(1)
    tasks = [
        world.arrive(CAT, 1000.0, limit_s=chance.choice([0.001, 1.0, 5.0, 60.0, 900.0])) for _ in range(200)
    ]
    world.run()
    assert {tuple(task.ends) for task in tasks} == {("timed out",)}
    assert all(task.ended_at == task.limit_s for task in tasks)


def test_an_attempt_that_was_lost_does_not_use_up_the_next_ones_time() -> None:
    world = World([NodeFacts("n1", 100, 512, 1), NodeFacts("n2", 100, 512, 1)], start_s=0.0)
    task = world.arrive(CAT, 20.0, limit_s=30.0)
    world.at(15.0, lambda: world.lose_node(world.nodes_of(CAT)[0]))
    world.run()
    assert (task.ends, task.attempts) == (["succeeded"], 2)
    assert 35.0 < task.ended_at < 36.0


def test_a_killed_program_that_does_not_end_is_told_once() -> None:
    """The killer waits for the task's end, or gives its slot up."""
    cell, slot_id = running(limit_s=5.0)
    assert cell.wake(5.0) == [TimeUp("t")]
    assert [decision for decision in cell.wake(4000.0) if isinstance(decision, TimeUp)] == []
    assert cell.slot_freed(slot_id, 5_000_000, 4001.0) == []


def test_a_task_that_has_ended_is_never_told() -> None:
    cell, slot_id = running(limit_s=5.0)
    cell.slot_freed(slot_id, 700, 4.0)
    # Nor does one begin that was lost in the same moment.
    cell.program_began(slot_id, 5.0, 4.0)
    cell.program_began("unknown", 5.0, 4.0)
    assert cell.wake(10.0) == []


def test_limits_that_nobody_asks_for_again_are_forgotten() -> None:
    cell, slot_id = running(limit_s=5.0)
    cell.slot_freed(slot_id, 700, 1.0)
    for number in range(20 * LENGTHS_SWEPT_AT):
        (assigned,) = cell.task_arrived(f"t{number}", CAT, 1.0)
        assert isinstance(assigned, Assign)
        cell.program_began(assigned.slot_id, 100.0 + number, 1.0)
        cell.slot_freed(assigned.slot_id, 700, 1.0)
    assert len(cell.books.timers._lines) <= LENGTHS_SWEPT_AT


def running(limit_s: float) -> tuple[Cell, str]:
    """A cell with the task `t` in the slot that is returned, since 0 s."""
    cell = Cell(Limits(keep_idle_s=1e9), number_slots("s"))
    decisions: list[Decision] = cell.task_arrived("t", CAT, 0.0)
    (start,) = decisions
    assert isinstance(start, StartSlot)
    (assigned,) = cell.slot_ready(start.slot_id, 0.0)
    assert isinstance(assigned, Assign)
    cell.program_began(start.slot_id, limit_s, 0.0)
    return cell, start.slot_id
