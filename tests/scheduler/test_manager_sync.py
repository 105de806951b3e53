"""Sync tasks, as conversations between a caller, the task manager and slots."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.errors import (
    DiskFull,
    NotRecorded,
)
from scheduler.policy.limits import Limits
from scheduler.task import Reason, State
from tests.scheduler.conftest import NewWorld, World, until, until_state
from tests.scheduler.fakes import CAT, cat

ONE_CORE = Limits(cpu_percent=100, start_backoff_s=0.01, patience_s=0.05)


async def test_the_first_task_starts_a_slot_and_the_second_finds_it(world: World) -> None:
    world.executor.program = cat
    first, out = await world.run(b"one")
    assert (first.state, first.cold_start, first.exit_code, out) == (State.SUCCEEDED, True, 0, b"one")
    second, out = await world.run(b"two")
    assert (second.cold_start, out) == (False, b"two")
    assert len(world.launcher.orders) == 1
    world.assert_nothing_left()


async def test_its_usage_is_in_the_store_when_finish_returns(world: World) -> None:
    world.executor.program = cat
    task, _ = await world.run(b"abc")
    kept = await world.store.get(task.id)
    assert kept == task
    assert (kept.cpu_us, kept.stdin_bytes, kept.stdout_bytes, kept.stdout_head) == (700, 3, 3, b"abc")
    assert kept.expires_us is not None
    assert kept.ended_us is not None
    assert kept.expires_us - kept.ended_us == 900_000_000
    assert world.ended.tasks == [task]


async def test_a_task_that_fails_says_how(world: World) -> None:
    world.executor.program = lambda run: run.exit(3, stderr=b"no")
    task, _ = await world.run()
    assert (task.state, task.reason, task.exit_code, task.stderr_head) == (
        State.FAILED,
        Reason.EXIT,
        3,
        b"no",
    )


async def test_output_that_outgrows_a_message_is_streamed_and_counted_to_its_end(world: World) -> None:
    running = world.begin()
    run = await world.started()
    run.outgrow(b"a" * 70_000, b"warning")
    run.exit(0, b"b" * 100_000, b" again")
    task, out = await running
    assert out == b"a" * 70_000 + b"b" * 100_000
    kept = await world.store.get(task.id)
    assert kept is not None
    assert (kept.stdout_bytes, kept.stderr_bytes, kept.stderr_head) == (170_000, 13, b"warning again")
    assert world.ended.tasks == [task]


@pytest.mark.parametrize("code", [0, 1])
async def test_a_row_shows_how_each_output_began_and_how_it_ended(world: World, code: int) -> None:
    running = world.begin()
    run = await world.started()
    run.outgrow(b"first out" + b"o" * 70_000, b"first err" + b"e" * 5_000)
    run.exit(code, b"o" * 5_000 + b"last out", b"e" * 5_000 + b"last err")
    task, _ = await running
    kept = await world.store.get(task.id)
    assert kept is not None
    assert (kept.stderr_head[:9], kept.stderr_tail[-8:], kept.stderr_bytes) == (
        b"first err",
        b"last err",
        10_017,
    )
    assert (kept.stdout_head[:9], kept.stdout_bytes) == (b"first out", 75_017)
    # The caller of one that succeeded has it all.
    assert kept.stdout_tail[-8:] == (b"last out" if code else b"")
    assert len(kept.stderr_tail) == 4096


async def test_a_stalled_reader_holds_up_neither_slot_nor_record(world: World) -> None:
    starting = asyncio.create_task(
        world.manager.run(world.spec(), CAT, b"", queue_timeout_s=60, head_bytes=10)
    )
    run = await world.started()
    run.outgrow(b"x" * 20)
    live, _, ended = await starting
    assert not ended
    run.exit(0, b"rest")
    await until(lambda: world.ended.tasks)
    assert (world.ended.tasks[0].state, world.facts()["slots_idle"]) == (State.SUCCEEDED, 1)
    # Then it reads on after all.
    assert b"".join([chunk async for chunk in live.rest()]) == b"rest"
    task = await world.manager.finish(live)
    kept = await world.store.get(task.id)
    assert kept is not None
    assert kept.stdout_bytes == 24
    assert len(world.ended.tasks) == 1


async def test_states_are_seen_while_they_last(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    running = world.begin()
    run = await world.started()
    (task_id,) = world.manager._roster.entries
    task = await world.manager.get("acme", task_id)
    assert task.state is State.RUNNING
    await until_state(world, task, State.RUNNING)
    run.exit()
    await running
    assert (await until_state(world, task, State.SUCCEEDED)).exit_code == 0


# -- a store that refuses


async def test_a_record_that_is_refused_for_a_moment_delays_the_answer(world: World) -> None:
    running = world.begin()
    run = await world.started()
    world.store.trouble = DiskFull()
    run.exit(0, b"kept")
    await until(lambda: world.store.refusals >= 2)
    with pytest.raises(DiskFull):
        await world.run()
    with pytest.raises(DiskFull):
        await world.manager.check()
    world.store.trouble = None
    task, out = await running
    assert (await world.store.get(task.id), out) == (task, b"kept")
    await world.manager.check()
    world.assert_nothing_left()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_result_whose_usage_cannot_be_recorded_is_withheld(
    new_world: NewWorld, streamed: bool
) -> None:
    world = await new_world(record_patience_s=0.1)
    running = world.begin()
    run = await world.started()
    world.store.trouble = DiskFull()
    if streamed:
        run.outgrow(b"x" * 70_000)
    run.exit(0, b"withheld")
    with pytest.raises(NotRecorded) as refused:
        await running
    assert refused.value.executed
    assert world.ended.tasks == []
    assert world.facts()["slots_idle"] == 1
    world.assert_nothing_left()
    world.store.trouble = None


async def test_an_abandoned_task_that_cannot_be_recorded_leaves_nothing(new_world: NewWorld) -> None:
    world = await new_world(record_patience_s=0.1)
    live = await world.start()
    world.store.trouble = DiskFull()
    world.manager.abandon(live)
    await until(lambda: not world.facts()["tasks_known"])
    world.store.trouble = None
