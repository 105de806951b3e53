"""Slots that their cluster ends after a while: none has a task that might run for longer, and none is cut off."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import BadRequest
from scheduler.policy.limits import Limits
from scheduler.policy.supply import LIFE_MARGIN_S
from scheduler.pool import PoolKey
from scheduler.task import Isolation
from tests.scheduler.policy.house import assert_books_are_empty, pool
from tests.scheduler.policy.test_nodes import node
from tests.scheduler.policy.world import SimTask, World

LIFE_S = 25 * 3600.0


class Mortal(World):
    """A world whose cluster ends each slot `LIFE_S` after its start, whatever runs in it."""

    def __init__(self, cores: int = 2, **limits: object) -> None:
        super().__init__([node("a", cores=cores)], Limits(**limits))  # type: ignore[arg-type]
        self.cell.slots_live(LIFE_S)
        self.cut: list[str] = []

    def arrive_for(self, key: PoolKey, run_s: float, limit_s: float) -> SimTask:
        task = SimTask(f"t{len(self.tasks)}", key, run_s, self.now, None, limit_s)
        self.tasks[task.id] = task
        self.cell.check(key, self.now, limit_s)
        self._do(self.cell.task_arrived(task.id, key, self.now, limit_s=limit_s))
        return task

    def _start(self, slot_id: str) -> None:
        super()._start(slot_id)
        self.at(self.now + LIFE_S, lambda: self._cut(slot_id))

    def _cut(self, slot_id: str) -> None:
        slot = self.slots.get(slot_id)
        if slot is not None:
            self.cut.append(slot_id)
            assert slot.task is None, f"{slot.task} was cut off"
            self._gone(slot_id)
            self._do(self.cell.slot_gone(slot_id, "its cluster ended it", self.now))


def test_a_task_that_outlasts_every_slot_is_refused_at_once() -> None:
    world = Mortal()
    world.cell.check(pool(), world.now, LIFE_S - LIFE_MARGIN_S)
    with pytest.raises(BadRequest, match="timeout_s: at most 89880 in this set") as refused:
        world.cell.check(pool(), world.now, LIFE_S)
    assert refused.value.field == "timeout_s"


def test_a_slot_that_is_too_old_for_a_long_task_gives_its_place_to_a_new_one() -> None:
    world = Mortal(keep_idle_s=LIFE_S)
    first = world.arrive_for(pool(), 1.0, 60.0)
    world.run(2 * 3600.0)
    long = world.arrive_for(pool(), 86_000.0, 86_400.0)
    world.run(2 * 3600.0 + 10.0)
    assert long.slot_id != first.slot_id
    assert world.log[1:] == [f"stop {first.slot_id}", f"start {long.slot_id} on a"]
    world.run()
    assert (long.ends, world.cut) == (["succeeded"], [])


def test_an_old_slot_still_serves_short_tasks() -> None:
    world = Mortal(keep_idle_s=LIFE_S)
    world.arrive_for(pool(), 1.0, 60.0)
    world.run(24 * 3600.0)
    again = world.arrive_for(pool(), 1.0, 60.0)
    world.run(24 * 3600.0 + 10.0)
    assert (again.ends, len(world.log)) == (["succeeded"], 1)


def test_a_slot_near_its_end_is_retired_when_it_is_idle() -> None:
    world = Mortal(keep_idle_s=10 * LIFE_S)
    world.arrive_for(pool(), 1.0, 60.0)
    world.run()
    assert world.log[-1].startswith("stop")
    assert world.cut == []


def test_a_slot_that_is_never_idle_is_retired_between_two_tasks() -> None:
    world = Mortal(cores=1)
    for number in range(60):
        world.at(number * 1.0, partial(world.arrive_for, pool(), 3000.0, 3600.0))
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}
    assert world.cut == []
    assert len({task.slot_id for task in world.tasks.values()}) > 1
    assert_books_are_empty(world.cell)


@given(
    tasks=st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from([(1.0, 60.0), (3500.0, 3600.0), (60.0, 86_400.0), (86_000.0, 86_400.0)]),
            st.floats(0.0, 40 * 3600.0),
            st.sampled_from([Isolation.SHARED, Isolation.SHARED, Isolation.FRESH]),
        ),
        min_size=1,
        max_size=40,
    ),
    cores=st.integers(1, 3),
    keep_idle_s=st.sampled_from([300.0, 10 * LIFE_S]),
)
@settings(max_examples=200, deadline=None)
def test_no_task_is_ever_cut_off(
    tasks: list[tuple[str, tuple[float, float], float, Isolation]], cores: int, keep_idle_s: float
) -> None:
    world = Mortal(cores, keep_idle_s=keep_idle_s)
    for account, (run_s, limit_s), at_s, isolation in tasks:
        world.at(at_s, partial(world.arrive_for, pool(account, isolation=isolation), run_s, limit_s))
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}
    assert world.cut == []
    assert_books_are_empty(world.cell)
