"""Which attempt's outcome counts, as conversations between the task manager, its store and slots."""

from __future__ import annotations

from scheduler.store.contract import Durability
from scheduler.task import Lease, State
from tests.scheduler.conftest import NewWorld, World, until


async def test_each_start_of_a_task_has_a_lease_of_its_own(world: World) -> None:
    task = await world.submit()
    first = await world.started()
    assert first.lease == Lease(task.id, 1)
    first.lose()
    second = await world.started(2)
    assert second.lease == Lease(task.id, 2)
    second.exit(0, b"second")
    ended = await world.wait(task)
    assert (ended.state, ended.attempts, ended.lease_number) == (State.SUCCEEDED, 2, 2)


async def test_a_start_that_does_not_count_has_a_lease_all_the_same(world: World) -> None:
    task = await world.submit()
    assert (await world.started()).lease == Lease(task.id, 1)
    await world.restart()
    again = await world.started()
    assert again.lease == Lease(task.id, 2)
    again.exit(0)
    ended = await world.wait(task)
    assert (ended.attempts, ended.lease_number) == (1, 2)


async def test_a_sync_task_tried_again_has_a_new_lease(world: World) -> None:
    running = world.begin()
    first = await world.started()
    first.lose()
    second = await world.started(2)
    assert [run.lease.number for run in (first, second)] == [1, 2]
    assert first.lease.task_id == second.lease.task_id
    second.exit(0, b"out")
    task, out = await running
    assert (task.state, out, task.lease_number) == (State.SUCCEEDED, b"out", 2)


async def test_the_end_of_another_attempt_is_none_of_this_one(world: World) -> None:
    """What an executor on another machine tells may come late."""
    task = await world.submit()
    first = await world.started()
    first.exit(0, b"late", lease=Lease(task.id, 0))
    second = await world.started(2)
    second.exit(0, b"right")
    ended = await world.wait(task)
    assert (ended.state, ended.attempts) == (State.SUCCEEDED, 2)
    assert await world.stdout(ended) == b"right"


async def test_an_outcome_whose_task_was_taken_over_is_dropped(new_world: NewWorld) -> None:
    world = await new_world()
    task = await world.submit()
    run = await world.started()
    # Another manager took the task over: its lease is the newest in the store.
    taken = await world.manager.get("acme", task.id)
    theirs = type(taken)(taken.id, taken.spec, taken.created_us, State.RUNNING, attempts=2, lease_number=2)
    await world.store.update(theirs, Durability.POWER)
    run.exit(0, b"too late")
    await until(lambda: not world.facts()["tasks_known"])
    assert await world.store.get(task.id) == theirs
    assert await world.store.results(task.id) is None
    assert world.ended.tasks == []
    # Its slot and what waits are well.
    world.executor.program = lambda run: run.exit(0)
    assert (await world.wait(await world.submit())).state is State.SUCCEEDED
