"""Slots that die: which attempts are made again, and what their callers are told."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.errors import (
    BadRequest,
    Draining,
    ImageUnusable,
    QueueTimeout,
    SchedulerError,
    SlotLost,
    StoreError,
    TaskCancelled,
)
from scheduler.store.contract import Body
from scheduler.task import Reason, State
from tests.scheduler.conftest import Clock, NewWorld, World, blob_files, until, until_state
from tests.scheduler.fakes import cat

LARGE = b"x" * 100_000


# -- sync tasks


async def test_a_slot_that_is_lost_before_any_output_is_tried_again(world: World) -> None:
    running = world.begin(b"again")
    (await world.started()).lose()
    (await world.started(2)).exit(0, b"again")
    task, out = await running
    assert (task.state, task.attempts, out) == (State.SUCCEEDED, 2, b"again")
    world.assert_nothing_left()


async def test_a_slot_lost_within_the_head_of_the_output_is_tried_again(world: World) -> None:
    running = world.begin()
    run = await world.started()
    run.outgrow(b"half")
    live = await world.live()
    await until(lambda: live.handed_over)
    run.lose()
    second = await world.started(2)
    second.exit(0, b"whole")
    task, out = await running
    assert (task.state, task.stdout_bytes, out) == (State.SUCCEEDED, 5, b"whole")


async def test_a_slot_lost_after_output_went_out_breaks_the_answer(world: World) -> None:
    running = world.begin()
    run = await world.started()
    run.outgrow(b"x" * 70_000)
    live = await world.live()
    await until(lambda: live.task.stdout_bytes == 70_000)
    run.lose()
    with pytest.raises(SlotLost):
        await running
    await until(lambda: world.ended.tasks)
    task = world.ended.tasks[0]
    assert (task.state, task.reason, task.cpu_us) == (State.FAILED, Reason.PLATFORM, 0)
    assert await world.store.get(task.id) == task
    world.assert_nothing_left()


async def test_lost_slots_are_tried_again_within_bounds(new_world: NewWorld) -> None:
    world = await new_world(max_attempts=3)
    world.executor.program = lambda run: run.lose()
    with pytest.raises(SlotLost) as lost:
        await world.run()
    assert lost.value.executed
    assert len(world.executor.runs) == 3
    world.assert_nothing_left()


@pytest.mark.parametrize("end", ["left", "cancelled", "timed out", "stopped"])
async def test_the_end_of_a_task_that_waits_to_be_tried_again(new_world: NewWorld, end: str) -> None:
    world = await new_world(clock=Clock())
    running = world.begin(queue_timeout_s=10)
    run = await world.started()
    world.launcher.prompt = False
    run.lose()
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    (task_id,) = world.manager._roster.entries
    if end == "left":
        running.cancel()
    elif end == "cancelled":
        task = await world.manager.cancel("acme", task_id)
        assert (task.state, task.reason, task.cpu_us) == (State.CANCELLED, Reason.CANCELLED, 0)
    elif end == "timed out":
        world.pass_time(10)
    elif end == "stopped":
        await world.close()
    (error,) = await asyncio.gather(running, return_exceptions=True)
    if end == "left":
        assert isinstance(error, asyncio.CancelledError)
    else:
        kind = {"cancelled": TaskCancelled, "timed out": QueueTimeout, "stopped": Draining}[end]
        assert isinstance(error, kind)
        assert isinstance(error, SchedulerError)
        # Its first attempt had begun: nobody may take it for one that never ran.
        assert error.executed
    assert len(world.executor.runs) == 1
    world.assert_nothing_left()


async def test_an_idle_slot_that_turns_out_dead_costs_its_caller_nothing(world: World) -> None:
    world.executor.program = cat
    await world.run()
    world.executor.refuse = [SlotLost("its guest does not take a task")]
    task, out = await world.run(b"fine")
    assert (task.state, out) == (State.SUCCEEDED, b"fine")
    live = await world.start()
    assert live.stdin is not None
    world.manager.abandon(live)
    await until(lambda: not world.facts()["tasks_known"])


async def test_slots_that_never_take_the_task_end_in_an_error_that_says_nothing_ran(world: World) -> None:
    world.executor.refuse = [SlotLost("dead")] * 3
    with pytest.raises(SlotLost) as lost:
        await world.run()
    assert not lost.value.executed
    world.assert_nothing_left()


async def test_work_that_fits_no_message_leaves_its_slot_free(world: World) -> None:
    world.executor.refuse = [BadRequest("arg: too long", field="arg")]
    with pytest.raises(BadRequest):
        await world.run()
    assert world.facts()["slots_idle"] == 1
    world.assert_nothing_left()


async def test_a_slot_that_dies_of_its_memory_is_the_tasks_own_end(world: World) -> None:
    world.launcher.out_of_memory = True
    running = world.begin()
    (await world.started()).lose("its container was killed")
    task, _ = await running
    assert (task.state, task.reason) == (State.FAILED, Reason.OUT_OF_MEMORY)
    assert len(world.executor.runs) == 1
    world.assert_nothing_left()


async def test_a_slot_that_dies_of_its_memory_while_its_task_is_ended_is_told(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock())
    world.launcher.out_of_memory = True
    running = world.begin(timeout_s=30)
    run = await world.started()
    run.kill = lambda: run.lose("its container was killed")  # type: ignore[method-assign]
    world.pass_time(30)
    task, _ = await running
    assert (task.state, task.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    assert task.detail is not None
    assert "killed 1 of the task's processes for using more memory" in task.detail
    world.assert_nothing_left()


async def test_a_slot_that_dies_after_the_end_of_its_task_changes_nothing(world: World) -> None:
    running = world.begin()
    run = await world.started()
    run.exit(0, b"done", clean=False)
    run.lose("it could not be cleaned")
    task, out = await running
    assert (task.state, out) == (State.SUCCEEDED, b"done")
    assert world.facts()["slots_running"] == 0


# -- async tasks


async def test_a_lost_attempt_is_made_again_and_its_results_never_mix(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    run.outgrow(LARGE, b"first")
    live = await world.live()
    await until(lambda: live.handed_over)
    run.lose()
    assert (await until_state(world, task, State.QUEUED)).started_us is None
    (await world.started(2)).exit(0, b"second")
    ended = await world.wait(task)
    assert (ended.state, ended.attempts, ended.stdout_bytes, ended.stderr_bytes) == (
        State.SUCCEEDED,
        2,
        6,
        0,
    )
    assert await world.stdout(task) == b"second"
    assert blob_files(world) == []


async def test_attempts_are_bounded(world: World) -> None:
    world.executor.program = lambda run: run.lose("its guest is gone")
    ended = await world.wait(await world.submit())
    assert (ended.state, ended.reason, ended.attempts, ended.cpu_us) == (
        State.FAILED,
        Reason.PLATFORM,
        3,
        0,
    )
    assert ended.detail is not None
    assert "lost every attempt (attempts: 3)" in ended.detail
    assert "its guest is gone" in ended.detail
    assert len(world.executor.runs) == 3
    world.assert_nothing_left()


async def test_a_tasks_own_failure_is_not_tried_again(world: World) -> None:
    world.executor.program = lambda run: run.exit(1)
    ended = await world.wait(await world.submit())
    assert (ended.state, ended.attempts, len(world.executor.runs)) == (State.FAILED, 1, 1)


async def test_a_slot_that_dies_of_its_memory_is_the_tasks_own_failure(world: World) -> None:
    world.launcher.out_of_memory = True
    world.executor.program = lambda run: run.lose()
    ended = await world.wait(await world.submit())
    assert (ended.state, ended.reason, ended.attempts) == (State.FAILED, Reason.OUT_OF_MEMORY, 1)
    assert ended.duration_us >= 0


async def test_a_task_that_no_slot_can_hold_fails_at_once(world: World) -> None:
    world.executor.refuse = [BadRequest("arg: 70,000 bytes fit no message", field="arg")]
    ended = await world.wait(await world.submit())
    assert (ended.state, ended.reason, ended.attempts) == (State.FAILED, Reason.NOT_EXECUTABLE, 1)
    assert world.facts()["slots_idle"] == 1


async def test_an_image_that_cannot_start_fails_its_tasks_with_the_reason(world: World) -> None:
    world.launcher.refuse = [ImageUnusable("its USER is unknown")] * 2
    tasks = [await world.submit(), await world.submit()]
    for task in tasks:
        ended = await world.wait(task)
        assert (ended.state, ended.reason, ended.detail, ended.attempts) == (
            State.FAILED,
            Reason.NOT_EXECUTABLE,
            "its USER is unknown",
            0,
        )
    world.assert_nothing_left()


async def test_a_slot_that_died_unnoticed_is_no_loss_to_the_next(world: World) -> None:
    world.executor.program = cat
    await world.wait(await world.submit())
    world.executor.refuse = [SlotLost("dead")]
    ended = await world.wait(await world.submit())
    assert (ended.state, ended.attempts) == (State.SUCCEEDED, 2)


async def test_a_slot_whose_input_cannot_be_read_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = world.store.stdin

    async def stdin(task_id: str) -> Body | None:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise StoreError("the disk does not answer")
        return await read(task_id)

    monkeypatch.setattr(world.store, "stdin", stdin)
    world.executor.program = cat
    ended = await world.wait(await world.submit())
    assert (ended.state, ended.attempts, len(world.launcher.orders)) == (State.SUCCEEDED, 2, 1)
    world.assert_nothing_left()
