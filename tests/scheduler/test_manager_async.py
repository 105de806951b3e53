"""Async tasks, as conversations between a client, the task manager, its store and slots."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from scheduler.errors import Draining, IdempotencyConflict, QueueFull, TaskUnknown
from scheduler.policy.limits import Limits
from scheduler.store.contract import Body, Idempotency, TaskFilter
from scheduler.task import Reason, State, Task
from tests.scheduler.conftest import NewWorld, World, blob_files, until
from tests.scheduler.fakes import cat

LARGE = b"x" * 100_000


async def stored(world: World, data: bytes) -> Body:
    writer = world.blobs.body()
    await writer.write(data)
    return await writer.finish()


async def test_a_submission_that_is_refused_leaves_no_input_behind(new_world: NewWorld) -> None:
    """Whether the cell, the store, or a set that stops refuses it."""
    world = await new_world(limits=Limits(max_waiting=1, cpu_percent=100))
    await world.submit(b"runs")
    run = await world.started()
    await world.submit(b"waits")
    with pytest.raises(QueueFull):
        await world.submit(await stored(world, LARGE))
    assert blob_files(world) == []
    run.exit()
    (await world.started(2)).exit()
    await until(lambda: len(world.ended.tasks) == 2)
    await world.submit(b"first", Idempotency("key", b"1" * 32))
    with pytest.raises(IdempotencyConflict):
        await world.submit(await stored(world, LARGE), Idempotency("key", b"2" * 32))
    assert blob_files(world) == []
    world.manager.acceptance.stop()
    with pytest.raises(Draining):
        await world.submit(await stored(world, LARGE))
    assert blob_files(world) == []


async def test_submit_run_fetch(world: World) -> None:
    world.executor.program = cat
    task = await world.submit(b"hello")
    ended = await world.wait(task)
    assert (ended.state, ended.exit_code, ended.attempts, ended.cpu_us) == (State.SUCCEEDED, 0, 1, 700)
    assert await world.stdout(task) == b"hello"
    assert ended == await world.store.get(task.id)
    assert world.ended.tasks == [ended]
    assert [listed.id for listed in await world.manager.page(TaskFilter("acme"))] == [task.id]
    world.assert_nothing_left()


async def test_a_large_input_and_a_large_output_are_files_of_which_only_the_result_stays(
    world: World,
) -> None:
    task = await world.submit(await stored(world, LARGE))
    run = await world.started()
    assert run.stdin is not None
    await until(lambda: run.stdin is not None and run.stdin.closed)
    run.outgrow(bytes(run.stdin.data))
    run.exit(0, b"y" * 10, b"log")
    ended = await world.wait(task)
    assert (ended.stdout_bytes, ended.stderr_bytes, ended.stderr_head) == (100_010, 3, b"log")
    assert await world.stdout(task) == LARGE + b"y" * 10
    results = await world.manager.results(task.id)
    assert results is not None
    assert results.stderr.inline == b"log"


async def test_an_input_that_cannot_be_read_is_the_platforms_failure(world: World) -> None:
    body = await stored(world, LARGE)
    assert body.blob is not None
    world.blobs.path(body.blob).unlink()
    task = await world.submit(body)
    ended = await world.wait(task)
    assert (ended.state, ended.reason, ended.attempts) == (State.FAILED, Reason.PLATFORM, 3)
    assert all(run.killed for run in world.executor.runs)
    assert world.facts()["slots_running"] == 0


async def test_another_accounts_task_is_not_there(world: World) -> None:
    world.executor.program = cat
    task = await world.submit()
    for ask in (world.manager.get, world.manager.cancel):
        with pytest.raises(TaskUnknown):
            await ask("other", task.id)
    with pytest.raises(TaskUnknown):
        await world.manager.wait("other", task.id, 1)
    await world.wait(task)


async def test_wait_returns_at_the_end_or_in_time(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    assert (await world.manager.wait("acme", task.id, 0)).state is State.RUNNING
    assert (await world.manager.wait("acme", task.id, 0.01)).state is State.RUNNING
    waiting = [asyncio.create_task(world.manager.wait("acme", task.id, 10)) for _ in range(3)]
    await until(lambda: len(world.manager._roster._watchers.get(task.id, ())) == 3)
    waiting[0].cancel()
    run.exit(3)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert [outcome.exit_code for outcome in outcomes[1:] if isinstance(outcome, Task)] == [3, 3]
    assert world.manager._roster._watchers == {}


# -- idempotency and acceptance


async def test_a_hundred_twins_make_one_task(world: World) -> None:
    world.executor.program = cat
    key = Idempotency("order 7", b"fingerprint")
    tasks = await asyncio.gather(*(world.submit(idempotency=key) for _ in range(100)))
    assert len({task.id for task in tasks}) == 1
    await world.wait(tasks[0])
    assert len(world.executor.runs) == 1
    again = await world.submit(idempotency=key)
    assert (again.id, again.state) == (tasks[0].id, State.SUCCEEDED)
    with pytest.raises(IdempotencyConflict):
        await world.submit(idempotency=Idempotency("order 7", b"another"))
    world.assert_nothing_left()


async def test_a_client_that_leaves_while_its_task_is_stored_has_submitted_it(world: World) -> None:
    world.executor.program = cat
    submitting = asyncio.create_task(world.submit())
    await asyncio.sleep(0)
    submitting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await submitting
    await until(lambda: world.ended.tasks)
    assert world.ended.tasks[0].state is State.SUCCEEDED
