"""Ends that somebody wanted: time limits and cancelling, of sync and of async tasks."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.errors import (
    TaskCancelled,
)
from scheduler.policy.limits import Limits
from scheduler.store.contract import Body
from scheduler.task import Reason, State
from tests.scheduler.conftest import Clock, NewWorld, World, until, until_state

ONE_CORE = Limits(cpu_percent=100, start_backoff_s=0.01, patience_s=0.05)


# -- time limits


async def test_a_task_that_runs_too_long_is_killed(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock())
    running = world.begin(timeout_s=30)
    run = await world.started()
    world.pass_time(29.9)
    assert not run.killed
    world.pass_time(0.1)
    task, _ = await running
    assert (task.state, task.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    world.assert_nothing_left()


async def test_a_program_that_ends_while_its_kill_is_under_way_has_ended_by_itself(
    new_world: NewWorld,
) -> None:
    world = await new_world(clock=Clock())
    running = world.begin(timeout_s=30)
    run = await world.started()
    run.obeys = False
    world.pass_time(30)
    assert run.killed
    run.exit(0, b"just in time")
    task, out = await running
    assert (task.state, out) == (State.SUCCEEDED, b"just in time")


async def test_a_task_whose_slot_dies_of_its_kill_is_not_run_again(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock())
    running = world.begin(timeout_s=30)
    run = await world.started()
    run.obeys = False
    world.pass_time(30)
    assert run.killed
    run.lose("its guest did not end a killed task in time")
    task, _ = await running
    assert (task.state, len(world.executor.runs)) == (State.TIMED_OUT, 1)
    world.assert_nothing_left()


async def test_a_time_out_is_the_end_also_when_the_slot_dies_of_it(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock())
    task = await world.submit(timeout_s=30)
    run = await world.started()
    run.obeys = False
    await world.live()
    world.pass_time(30)
    assert run.killed
    run.lose("its guest did not end a killed task in time")
    ended = await world.wait(task)
    assert (ended.state, ended.reason, ended.attempts) == (State.TIMED_OUT, Reason.TIMEOUT, 1)


# -- cancelling sync tasks


async def test_cancelling_a_task_that_waits_tells_its_caller(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    first = world.begin()
    run = await world.started()
    waiting = world.begin()
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    task_id = next(id for id, entry in world.manager._roster.entries.items() if not entry.slot_id)
    task = await world.manager.cancel("acme", task_id)
    assert (task.state, task.reason, task.attempts) == (State.CANCELLED, Reason.CANCELLED, 0)
    with pytest.raises(TaskCancelled):
        await waiting
    run.exit()
    await first
    world.assert_nothing_left()


async def test_cancelling_a_task_that_runs_ends_it(world: World) -> None:
    running = world.begin()
    await world.started()
    (task_id,) = world.manager._roster.entries
    cancelling = asyncio.create_task(world.manager.cancel("acme", task_id))
    task, _ = await running
    assert (task.state, task.reason) == (State.CANCELLED, Reason.CANCELLED)
    assert (await cancelling).state is State.CANCELLED
    assert (await world.manager.cancel("acme", task_id)).ended_us == task.ended_us
    world.assert_nothing_left()


# -- cancelling async tasks


async def test_cancelling_at_each_state(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    running, waiting = await world.submit(), await world.submit()
    run = await world.started()
    cancelled = await world.manager.cancel("acme", waiting.id)
    assert (cancelled.state, cancelled.reason, cancelled.attempts) == (
        State.CANCELLED,
        Reason.CANCELLED,
        0,
    )
    cancelled = await world.manager.cancel("acme", running.id)
    assert (cancelled.state, cancelled.reason) == (State.CANCELLED, Reason.CANCELLED)
    assert run.killed
    assert await world.manager.cancel("acme", running.id) == cancelled
    assert len(world.ended.tasks) == 2
    world.assert_nothing_left()


async def test_twins_of_a_cancel_end_a_task_once(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    await world.submit()
    await world.started()
    waiting = await world.submit()
    outcomes = await asyncio.gather(*(world.manager.cancel("acme", waiting.id) for _ in range(5)))
    assert {outcome.state for outcome in outcomes} == {State.CANCELLED}
    assert len(world.ended.tasks) == 1


async def test_cancelling_between_two_attempts(new_world: NewWorld) -> None:
    world = await new_world(retry_backoff_s=30.0, clock=Clock())
    task = await world.submit()
    (await world.started()).lose()
    await until_state(world, task, State.QUEUED)
    cancelled = await world.manager.cancel("acme", task.id)
    assert (cancelled.state, cancelled.attempts) == (State.CANCELLED, 1)
    world.assert_nothing_left()


async def test_a_task_that_is_cancelled_while_its_slot_dies_is_not_run_again(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    run.obeys = False
    cancelling = asyncio.create_task(world.manager.cancel("acme", task.id))
    await until(lambda: run.killed)
    run.lose()
    assert (await cancelling).state is State.CANCELLED
    assert len(world.executor.runs) == 1


async def test_cancelling_while_the_input_is_read_runs_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = asyncio.Event(), asyncio.Event()
    read = world.store.stdin

    async def stdin(task_id: str) -> Body | None:
        reading.set()
        await go_on.wait()
        return await read(task_id)

    monkeypatch.setattr(world.store, "stdin", stdin)
    task = await world.submit()
    await reading.wait()
    cancelling = asyncio.create_task(world.manager.cancel("acme", task.id))
    await until(lambda: world.manager._roster.entries[task.id].cancel is not None)
    go_on.set()
    assert (await cancelling).state is State.CANCELLED
    assert world.executor.runs == []
    assert world.facts()["slots_idle"] == 1
    world.assert_nothing_left()
