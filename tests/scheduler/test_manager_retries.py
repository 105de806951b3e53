"""Tasks that fail by themselves: run again where their caller asked for it, and billed for each attempt that ran."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from scheduler.errors import DiskFull, StoreError
from scheduler.execution import How
from scheduler.store.contract import Durability
from scheduler.task import Lease, Reason, State, Task
from tests.scheduler.conftest import Clock, NewWorld, World, blob_files, until, until_state
from tests.scheduler.fakes import FakeRun, cat

LARGE = b"x" * 100_000


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return await new_world(own_backoff_s=0.01)


async def test_a_task_that_failed_runs_again_and_nothing_of_its_attempts_mixes(world: World) -> None:
    task = await world.submit(retries=2)
    run = await world.started()
    run.outgrow(LARGE, b"first")
    run.exit(3, b"more", cpu_us=500)
    waits = await until_state(world, task, State.QUEUED)
    assert (waits.attempts, waits.exit_code, waits.cpu_us) == (1, None, 500)
    second = await world.started(2)
    assert second.lease == Lease(task.id, 2)
    second.exit(0, b"second", cpu_us=300)
    ended = await world.wait(task)
    assert (ended.state, ended.exit_code, ended.attempts) == (State.SUCCEEDED, 0, 2)
    assert (ended.stdout_bytes, ended.stderr_bytes, ended.stderr_head) == (6, 0, b"")
    assert await world.stdout(task) == b"second"
    # One record has what both used.
    assert (ended.cpu_us, ended.duration_us) == (800, 2000)
    (failed,) = ended.failed_attempts
    assert (failed.reason, failed.exit_code, failed.cpu_us, failed.duration_us) == (Reason.EXIT, 3, 500, 1000)
    assert [each.id for each in world.ended.tasks] == [task.id]
    assert blob_files(world) == []
    world.assert_nothing_left()


async def test_its_last_attempt_ends_the_task(world: World) -> None:
    world.executor.program = lambda run: run.exit(run.lease.number, b"%d" % run.lease.number)
    ended = await world.wait(await world.submit(retries=2))
    assert (ended.state, ended.reason, ended.exit_code, ended.attempts) == (
        State.FAILED,
        Reason.EXIT,
        3,
        3,
    )
    assert [failed.exit_code for failed in ended.failed_attempts] == [1, 2]
    assert (ended.cpu_us, ended.dead) == (2100, False)
    assert await world.stdout(ended) == b"3"
    assert len(world.executor.runs) == 3


@pytest.mark.parametrize(
    ("codes", "code", "attempts"),
    [((), 1, 2), ((75,), 75, 2), ((75,), 1, 1), ((74, 75), 75, 2)],
)
async def test_only_named_exit_codes_count(
    world: World, codes: tuple[int, ...], code: int, attempts: int
) -> None:
    world.executor.program = lambda run: run.exit(code)
    ended = await world.wait(await world.submit(retries=1, retry_exit_codes=codes))
    assert (ended.exit_code, ended.attempts) == (code, attempts)


async def test_a_signal_and_used_up_memory_are_failures_of_the_task(world: World) -> None:
    def fail(run: FakeRun) -> None:
        if run.lease.number == 1:
            run.exit(11, how=How.SIGNALLED)
        elif run.lease.number == 2:
            run.exit(9, how=How.SIGNALLED, oom_kills=1)
        else:
            run.exit(0)

    world.executor.program = fail
    ended = await world.wait(await world.submit(retries=3))
    assert (ended.state, [failed.reason for failed in ended.failed_attempts]) == (
        State.SUCCEEDED,
        [Reason.SIGNAL, Reason.OUT_OF_MEMORY],
    )
    # Neither has an exit code.
    ended = await world.wait(await world.submit(retries=3, retry_exit_codes=(137,)))
    assert (ended.reason, ended.attempts) == (Reason.SIGNAL, 1)


async def test_a_time_limit_is_the_same_for_the_next_attempt(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock())
    task = await world.submit(retries=3, timeout_s=30)
    await world.started()
    world.pass_time(30)
    ended = await world.wait(task)
    assert (ended.state, ended.attempts) == (State.TIMED_OUT, 1)


async def test_a_program_that_cannot_be_executed_is_not_tried_again(world: World) -> None:
    world.executor.program = lambda run: run.exit(2, how=How.NOT_EXECUTED)
    ended = await world.wait(await world.submit(retries=3))
    assert (ended.reason, ended.attempts) == (Reason.NOT_EXECUTABLE, 1)


async def test_attempts_that_the_platform_lost_count_apart(new_world: NewWorld) -> None:
    """The task's failures leave the platform its tries, and the other way round; what was lost is not billed."""
    world = await new_world(own_backoff_s=0.01, max_attempts=3)

    def run(run: FakeRun) -> None:
        if run.lease.number in (1, 3):
            run.cpu_us = 10_000
            run.lose()
        else:
            run.exit(0 if run.lease.number == 5 else 1)

    world.executor.program = run
    ended = await world.wait(await world.submit(retries=2))
    assert (ended.state, ended.attempts, len(ended.failed_attempts)) == (State.SUCCEEDED, 5, 2)
    assert ended.cpu_us == 3 * 700


async def test_a_task_that_failed_and_was_then_given_up_is_billed_for_what_ran(world: World) -> None:
    def run(run: FakeRun) -> None:
        if run.lease.number == 1:
            run.exit(1)
        else:
            run.lose("its guest is gone")

    world.executor.program = run
    ended = await world.wait(await world.submit(retries=1))
    assert (ended.state, ended.reason, ended.dead) == (State.FAILED, Reason.PLATFORM, True)
    assert (ended.attempts, ended.cpu_us) == (4, 700)
    assert ended.detail is not None
    assert "lost every attempt (attempts: 3)" in ended.detail


async def test_it_pauses_longer_each_time(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock(), own_backoff_s=8.0)
    task = await world.submit(retries=2)
    (await world.started()).exit(1)
    await until(lambda: world.manager._floor._cell._queue.resumes_at(task.id))
    assert "its next attempt, in" in (world.manager.waiting_for(task) or "")
    world.pass_time(3.9)
    assert len(world.executor.runs) == 1
    world.pass_time(4.1)
    (await world.started(2)).exit(1)
    await until(lambda: world.manager._floor._cell._queue.resumes_at(task.id))
    world.pass_time(7.9)
    assert len(world.executor.runs) == 2
    world.pass_time(8.1)
    (await world.started(3)).exit(0)
    assert (await world.wait(task)).attempts == 3


async def test_one_that_is_cancelled_between_two_attempts_is_billed_for_the_first(
    new_world: NewWorld,
) -> None:
    world = await new_world(clock=Clock())
    task = await world.submit(retries=1)
    (await world.started()).exit(1)
    await until(lambda: world.manager._floor._cell._queue.resumes_at(task.id))
    cancelled = await world.manager.cancel("acme", task.id)
    assert (cancelled.state, cancelled.cpu_us, cancelled.attempts) == (State.CANCELLED, 700, 1)
    world.pass_time(1000)
    assert len(world.executor.runs) == 1
    world.assert_nothing_left()


async def test_a_failure_after_its_cancel_is_its_end(world: World) -> None:
    task = await world.submit(retries=5)
    run = await world.started()
    run.obeys = False
    cancelling = asyncio.create_task(world.manager.cancel("acme", task.id))
    await until(lambda: run.killed)
    run.exit(1)
    ended = await cancelling
    assert (ended.state, ended.attempts) == (State.FAILED, 1)


async def test_it_goes_on_after_a_killed_set_with_what_was_billed(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock())
    task = await world.submit(retries=1)
    (await world.started()).exit(1)
    await until(lambda: world.manager._floor._cell._queue.resumes_at(task.id))
    stored = await world.store.get(task.id)
    assert stored is not None
    assert (stored.state, stored.cpu_us, len(stored.failed_attempts)) == (State.QUEUED, 700, 1)
    await world.restart()
    world.executor.program = cat
    ended = await world.wait(task)
    assert (ended.state, ended.attempts, ended.cpu_us) == (State.SUCCEEDED, 2, 1400)
    assert await world.stdout(task) == b"hello"


async def test_the_next_attempt_waits_until_the_failed_one_is_on_disk(world: World) -> None:
    task = await world.submit(retries=1)
    run = await world.started()
    world.store.trouble = DiskFull()
    run.exit(1)
    await until(lambda: world.store.refusals >= 2)
    assert len(world.executor.runs) == 1
    world.store.trouble = None
    (await world.started(2)).exit(0)
    ended = await world.wait(task)
    assert (ended.state, ended.cpu_us) == (State.SUCCEEDED, 1400)


async def test_output_of_a_failed_attempt_that_cannot_be_deleted_holds_nothing_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Collection[str]] = []

    async def delete(names: Collection[str]) -> None:
        refused.append(names)
        raise StoreError("the disk does not answer")

    monkeypatch.setattr(world.blobs, "delete", delete)
    task = await world.submit(retries=1)
    run = await world.started()
    run.outgrow(LARGE)
    run.exit(1)
    (await world.started(2)).exit(0, b"second")
    assert await world.stdout(await world.wait(task)) == b"second"
    assert [len(names) for names in refused if names] == [1]


async def test_one_that_is_cancelled_while_its_failure_is_being_stored_stays_cancelled(world: World) -> None:
    task = await world.submit(retries=1)
    run = await world.started()
    world.store.trouble = DiskFull()
    run.exit(1)
    await until(lambda: world.store.refusals >= 1)
    cancelling = asyncio.create_task(world.manager.cancel("acme", task.id))
    await until(lambda: world.store.refusals >= 3)
    world.store.trouble = None
    assert (await cancelling).state is State.CANCELLED
    await until(lambda: not world.manager._async._background._tasks)
    stored = await world.store.get(task.id)
    assert stored is not None
    assert (stored.state, stored.cpu_us) == (State.CANCELLED, 700)
    assert len(world.executor.runs) == 1


async def test_one_that_is_cancelled_just_as_its_failure_is_stored_waits_for_no_attempt(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await new_world(own_backoff_s=300.0)
    task = await world.submit(retries=1)
    run = await world.started()
    entry = world.manager._roster.entries[task.id]
    store = world.store.update

    async def update(failed: Task, durability: Durability) -> None:
        await store(failed, durability)
        # The cancel comes first, and its end has not begun when the failed attempt goes on.
        entry.cancel = Reason.CANCELLED
        entry.side.cancel(entry)

    monkeypatch.setattr(world.store, "update", update)
    run.exit(1)
    assert (await world.wait(task)).state is State.CANCELLED
    assert world.manager._floor.waiting_for(task.id) is None
