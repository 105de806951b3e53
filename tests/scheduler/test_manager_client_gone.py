"""Clients of sync tasks that go away: from the queue, while their task runs, while it is recorded."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from scheduler.policy.limits import Limits
from scheduler.task import Reason, State
from tests.scheduler.conftest import NewWorld, World, until
from tests.scheduler.fakes import CAT, cat

ONE_CORE = Limits(cpu_percent=100, start_backoff_s=0.01, patience_s=0.05)


async def test_a_client_that_leaves_the_queue_leaves_nothing(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    first = world.begin()
    run = await world.started()
    waiting = world.begin()
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert world.facts()["tasks_waiting"] == 0
    run.exit()
    await first
    assert len(world.executor.runs) == 1
    world.assert_nothing_left()


async def test_a_client_that_leaves_in_the_moment_of_its_start_ends_its_task(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    first = world.begin()
    run = await world.started()
    waiting = world.begin()
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    # The slot is given to it, and before it wakes it is cancelled.
    run.exit()
    waiting.cancel()
    assert isinstance(
        (await asyncio.gather(first, waiting, return_exceptions=True))[1], asyncio.CancelledError
    )
    await until(lambda: len(world.ended.tasks) == 2)
    assert world.executor.runs[1].killed
    assert [(task.state, task.reason) for task in world.ended.tasks][1] == (
        State.CANCELLED,
        Reason.CLIENT_GONE,
    )
    world.assert_nothing_left()


@pytest.mark.parametrize("moment", ["before output", "in the head", "in the rest"])
async def test_a_client_that_leaves_while_its_task_runs_ends_it(world: World, moment: str) -> None:
    running = asyncio.create_task(_like_the_api(world))
    run = await world.started()
    if moment != "before output":
        size = 10 if moment == "in the head" else 70_000
        run.outgrow(b"x" * size)
        live = await world.live()
        await until(lambda: live.task.stdout_bytes == size or (moment == "in the head" and live.handed_over))
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await until(lambda: world.ended.tasks)
    assert run.killed
    assert (world.ended.tasks[0].state, world.ended.tasks[0].reason) == (State.CANCELLED, Reason.CLIENT_GONE)
    kept = await world.store.get(world.ended.tasks[0].id)
    assert kept is not None
    assert kept.cpu_us == 700
    world.assert_nothing_left()


async def _like_the_api(world: World) -> None:
    live, _, ended = await world.manager.run(world.spec(), CAT, b"", queue_timeout_s=60, head_bytes=65536)
    try:
        if not ended:
            async for _ in live.rest():
                pass
        await world.manager.finish(live)
    except asyncio.CancelledError:
        world.manager.abandon(live)
        raise


async def test_a_client_that_leaves_while_its_record_is_written_is_recorded_once(world: World) -> None:
    world.executor.program = cat
    live, _, _ = await world.manager.run(world.spec(), CAT, b"x", queue_timeout_s=60, head_bytes=100)
    finishing = asyncio.create_task(world.manager.finish(live))
    await asyncio.sleep(0)
    finishing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await finishing
    await until(lambda: world.ended.tasks)
    # Callers may also say so themselves, after its end, too.
    world.manager.abandon(live)
    await world.settled()
    assert [task.state for task in world.ended.tasks] == [State.SUCCEEDED]
    kept = await world.store.get(live.task.id)
    assert kept is not None
    assert kept.state is State.SUCCEEDED
    world.assert_nothing_left()
