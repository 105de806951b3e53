"""Sync tasks, as conversations between a caller, the task manager and slots."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from scheduler.errors import (
    AccountLimit,
    BadRequest,
    DiskFull,
    Draining,
    EngineRefused,
    ImageUnusable,
    NotRecorded,
    QueueFull,
    QueueTimeout,
    SchedulerError,
    SlotLost,
    TaskCancelled,
)
from scheduler.policy.limits import Limits
from scheduler.task import Reason, Resources, State
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
        world.manager.run(world.spec(), CAT, b"", queue_timeout_s=5, head_bytes=10)
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


# -- waiting


async def test_who_finds_no_slot_in_time_is_told_why(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    first = world.begin()
    run = await world.started()
    with pytest.raises(
        QueueTimeout, match=r"queue_timeout_s \(0.02 s\): all slots of its kind are busy \(1\)$"
    ) as refused:
        await world.run(queue_timeout_s=0.02)
    assert not refused.value.executed
    run.exit()
    await first
    world.assert_nothing_left()


async def test_a_queue_time_out_names_what_keeps_slots_from_starting(world: World) -> None:
    world.launcher.refuse = [EngineRefused("no space left on the engine")] * 100
    with pytest.raises(QueueTimeout, match="could not start: no space left on the engine"):
        await world.run(queue_timeout_s=0.1)
    world.assert_nothing_left()


async def test_a_full_queue_answers_at_once(new_world: NewWorld) -> None:
    world = await new_world(limits=Limits(cpu_percent=100, max_waiting=2, max_waiting_account=1))
    running = world.begin()
    run = await world.started()
    waiting = world.begin()
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    with pytest.raises(AccountLimit):
        await world.run()
    with pytest.raises(AccountLimit):
        world.manager.check_room(world.spec())
    other = world.begin(account="other")
    await until(lambda: world.facts()["tasks_waiting"] == 2)
    with pytest.raises(QueueFull):
        await world.run(account="third")
    world.executor.program = cat
    run.exit()
    await asyncio.gather(running, waiting, other)
    world.assert_nothing_left()


async def test_more_than_the_set_has_is_the_callers_mistake(world: World) -> None:
    with pytest.raises(BadRequest) as refused:
        await world.run(resources=Resources(cpu_percent=300))
    assert refused.value.field == "cpu"
    world.assert_nothing_left()


async def test_an_image_that_cannot_start_is_refused_to_all_who_wait(world: World) -> None:
    world.launcher.refuse = [ImageUnusable("its USER is not in its passwd")] * 2
    outcomes = await asyncio.gather(world.run(), world.run(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ImageUnusable, ImageUnusable]
    world.assert_nothing_left()


# -- a client that goes away


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
        run.outgrow(b"x" * (10 if moment == "in the head" else 70_000))
    await asyncio.sleep(0.01)
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
    live, _, ended = await world.manager.run(world.spec(), CAT, b"", queue_timeout_s=5, head_bytes=65536)
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
    live, _, _ = await world.manager.run(world.spec(), CAT, b"x", queue_timeout_s=5, head_bytes=100)
    finishing = asyncio.create_task(world.manager.finish(live))
    await asyncio.sleep(0)
    finishing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await finishing
    await until(lambda: world.ended.tasks)
    # Callers may also say so themselves, after its end, too.
    world.manager.abandon(live)
    await asyncio.sleep(0.02)
    assert [task.state for task in world.ended.tasks] == [State.SUCCEEDED]
    kept = await world.store.get(live.task.id)
    assert kept is not None
    assert kept.state is State.SUCCEEDED
    world.assert_nothing_left()


# -- time-outs and cancelling


async def test_a_task_that_runs_too_long_is_killed(world: World) -> None:
    task, _ = await world.run(timeout_s=0.02)
    assert (task.state, task.reason) == (State.TIMED_OUT, Reason.TIMEOUT)
    world.assert_nothing_left()


async def test_a_program_that_ends_while_its_kill_is_under_way_has_ended_by_itself(world: World) -> None:
    running = world.begin(timeout_s=0.02)
    run = await world.started()
    run.obeys = False
    await until(lambda: run.killed)
    run.exit(0, b"just in time")
    task, out = await running
    assert (task.state, out) == (State.SUCCEEDED, b"just in time")


async def test_a_task_whose_slot_dies_of_its_kill_is_not_run_again(world: World) -> None:
    running = world.begin(timeout_s=0.02)
    run = await world.started()
    run.obeys = False
    await until(lambda: run.killed)
    run.lose("its guest did not end a killed task in time")
    task, _ = await running
    assert (task.state, len(world.executor.runs)) == (State.TIMED_OUT, 1)
    world.assert_nothing_left()


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


# -- slots that die


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
    await asyncio.sleep(0.005)
    run.lose()
    second = await world.started(2)
    second.exit(0, b"whole")
    task, out = await running
    assert (task.state, task.stdout_bytes, out) == (State.SUCCEEDED, 5, b"whole")


async def test_a_slot_lost_after_output_went_out_breaks_the_answer(world: World) -> None:
    running = world.begin()
    run = await world.started()
    run.outgrow(b"x" * 70_000)
    await asyncio.sleep(0.005)
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
async def test_the_end_of_a_task_that_waits_to_be_tried_again(world: World, end: str) -> None:
    running = world.begin(queue_timeout_s=0.05 if end == "timed out" else 5)
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


async def test_a_slot_that_dies_of_its_memory_while_its_task_is_ended_is_told(world: World) -> None:
    world.launcher.out_of_memory = True
    running = world.begin(timeout_s=0.05)
    run = await world.started()
    run.kill = lambda: run.lose("its container was killed")  # type: ignore[method-assign]
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
