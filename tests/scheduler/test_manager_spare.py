"""Spare tasks through the task manager: they give way to normal ones, and lose nothing but time."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.errors import GaveWay
from scheduler.policy.limits import Limits
from scheduler.store.contract import TaskFilter
from scheduler.sync_side import GIVE_WAYS_MOST
from scheduler.task import Priority, Reason, State
from tests.scheduler.conftest import NewWorld, until, until_state

ONE_CORE = Limits(cpu_percent=100, start_backoff_s=0.01, patience_s=0.05)


async def test_a_spare_task_gives_way_and_runs_again(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    spare = await world.submit(b"later", priority=Priority.SPARE)
    first = await world.started()
    first.outgrow(b"half of a result")
    normal = world.begin(b"now", account="other")
    # Its slot starts beside the spare one's; then the spare task is killed, and goes back into the queue.
    run = await world.started(2)
    assert first.killed
    assert run.work.stdin == b"now"
    kept = await until_state(world, spare, State.QUEUED)
    assert (kept.attempts, kept.started_us) == (0, None)
    run.exit(0, b"done")
    assert (await normal)[1] == b"done"
    again = await world.started(3)
    assert again.work.stdin == b"later"
    again.exit(0, b"whole result", cpu_us=500)
    ended = await world.wait(spare)
    # What it used before it gave way is not billed.
    assert (ended.state, ended.attempts, ended.cpu_us) == (State.SUCCEEDED, 1, 500)
    assert await world.stdout(spare) == b"whole result"
    world.assert_nothing_left()


async def test_a_spare_task_that_ends_while_it_is_told_has_ended(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    spare = await world.submit(b"x", priority=Priority.SPARE)
    first = await world.started()
    first.obeys = False
    normal = world.begin(account="other")
    await until(lambda: first.killed)
    first.exit(0, b"in time")
    ended = await world.wait(spare)
    assert (ended.state, ended.attempts, ended.cpu_us) == (State.SUCCEEDED, 1, 700)
    (await world.started(2)).exit()
    await normal
    assert len(world.executor.runs) == 2
    world.assert_nothing_left()


async def test_a_spare_task_that_is_cancelled_while_it_gives_way_is_cancelled(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    spare = await world.submit(b"x", priority=Priority.SPARE)
    first = await world.started()
    first.obeys = False
    normal = world.begin(account="other")
    await until(lambda: first.killed)
    cancelled = asyncio.create_task(world.manager.cancel("acme", spare.id))
    await asyncio.sleep(0)
    first.exit(9, killed=True)
    task = await cancelled
    assert (task.state, task.reason) == (State.CANCELLED, Reason.CANCELLED)
    (await world.started(2)).exit()
    await normal
    world.assert_nothing_left()


async def test_a_sync_spare_task_whose_caller_has_seen_nothing_runs_again(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    spare = world.begin(b"later", priority=Priority.SPARE)
    first = await world.started()
    first.outgrow(b"half of ")
    normal = world.begin(b"now", account="other")
    run = await world.started(2)
    assert first.killed
    run.exit(0, b"done")
    assert (await normal)[1] == b"done"
    again = await world.started(3)
    assert again.work.stdin == b"later"
    again.exit(0, b"whole", cpu_us=500)
    task, output = await spare
    assert (task.state, task.attempts, task.cpu_us, output) == (State.SUCCEEDED, 1, 500, b"whole")
    assert world.facts()["spare_gave_way"] == 1
    world.assert_nothing_left()


async def test_a_sync_spare_task_gives_up_after_it_gave_way_a_few_times(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    spare = world.begin(b"later", priority=Priority.SPARE)
    for number in range(1, 2 * GIVE_WAYS_MOST + 2, 2):
        mine = await world.started(number)
        normal = world.begin(b"now", account="other")
        (await world.started(number + 1)).exit()
        await normal
        assert mine.killed
    with pytest.raises(GaveWay) as raised:
        await spare
    assert raised.value.executed
    (task,) = await world.manager.page(TaskFilter("acme"))
    assert (task.state, task.reason, task.cpu_us) == (State.FAILED, Reason.GAVE_WAY, 0)
    world.assert_nothing_left()


async def test_a_sync_spare_task_whose_input_was_streamed_ends_when_it_gives_way(new_world: NewWorld) -> None:
    """What the program read is gone: only its caller can send it again."""
    world = await new_world(limits=ONE_CORE)
    live = await world.start(priority=Priority.SPARE)
    normal = world.begin(b"now", account="other")
    (await world.started(2)).exit()
    await normal
    with pytest.raises(GaveWay):
        await world.manager.finish(live)
    ended = await world.manager.get("acme", live.task.id)
    assert (ended.state, ended.reason, ended.cpu_us) == (State.FAILED, Reason.GAVE_WAY, 0)
    world.assert_nothing_left()


async def test_a_sync_spare_task_that_is_cancelled_while_it_gives_way_is_cancelled(
    new_world: NewWorld,
) -> None:
    world = await new_world(limits=ONE_CORE)
    spare = world.begin(b"x", priority=Priority.SPARE)
    first = await world.started()
    first.obeys = False
    normal = world.begin(account="other")
    await until(lambda: first.killed)
    cancelled = asyncio.create_task(world.manager.cancel("acme", first.lease.task_id))
    await asyncio.sleep(0)
    first.exit(9, killed=True)
    assert (await cancelled).state is State.CANCELLED
    with pytest.raises(GaveWay):
        await spare
    (await world.started(2)).exit()
    await normal
    world.assert_nothing_left()
