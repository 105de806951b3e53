"""Async tasks, as conversations between a client, the task manager, its store and slots."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

import pytest

from scheduler.errors import (
    BadRequest,
    DiskFull,
    IdempotencyConflict,
    ImageUnusable,
    SlotLost,
    StoreError,
    TaskUnknown,
)
from scheduler.execution import NoFile
from scheduler.policy.limits import Limits
from scheduler.source import OpenFile
from scheduler.store.blobs import SpooledBody
from scheduler.store.contract import Body, Idempotency, TaskFilter
from scheduler.task import Reason, State, Task
from tests.scheduler.conftest import NewWorld, World, until, until_state
from tests.scheduler.fakes import FakeRun, cat

ONE_CORE = Limits(cpu_percent=100, start_backoff_s=0.01, patience_s=0.05)
LARGE = b"x" * 100_000


async def stored(world: World, data: bytes) -> Body:
    writer = world.blobs.body()
    await writer.write(data)
    return await writer.finish()


def blob_files(world: World) -> list[Path]:
    folder = world.folder / "blobs"
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


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


# -- waiting for the end


async def test_wait_returns_at_the_end_or_in_time(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    assert (await world.manager.wait("acme", task.id, 0)).state is State.RUNNING
    assert (await world.manager.wait("acme", task.id, 0.01)).state is State.RUNNING
    waiting = [asyncio.create_task(world.manager.wait("acme", task.id, 10)) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    run.exit(3)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert [outcome.exit_code for outcome in outcomes[1:] if isinstance(outcome, Task)] == [3, 3]
    assert world.manager._roster._watchers == {}


# -- attempts


async def test_a_lost_attempt_is_made_again_and_its_results_never_mix(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    run.outgrow(LARGE, b"first")
    await asyncio.sleep(0.01)
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


async def test_a_time_out_is_the_end_also_when_the_slot_dies_of_it(world: World) -> None:
    def stubborn(run: FakeRun) -> None:
        run.obeys = False

    world.executor.program = stubborn
    task = await world.submit(timeout_s=0.02)
    run = await world.started()
    await until(lambda: run.killed)
    run.lose("its guest did not end a killed task in time")
    ended = await world.wait(task)
    assert (ended.state, ended.reason, ended.attempts) == (State.TIMED_OUT, Reason.TIMEOUT, 1)


# -- cancelling


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
    world = await new_world(retry_backoff_s=30.0)
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
    await asyncio.sleep(0.005)
    go_on.set()
    assert (await cancelling).state is State.CANCELLED
    assert world.executor.runs == []
    assert world.facts()["slots_idle"] == 1
    world.assert_nothing_left()


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


# -- limits and disks


async def test_more_output_than_is_kept_fails_the_task_and_keeps_its_beginning(new_world: NewWorld) -> None:
    world = await new_world(stdout_max_bytes=150_000)
    task = await world.submit()
    run = await world.started()
    run.outgrow(LARGE)
    run.stdout.feed(LARGE)
    ended = await world.wait(task)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.OUTPUT_TOO_LARGE)
    assert ended.detail is not None
    assert ended.detail.endswith("; of its stdout, 200000 bytes, this set keeps the first 150000")
    assert run.killed
    assert await world.stdout(task) == b"x" * 150_000


async def test_output_that_is_cut_is_no_success_although_the_program_ended_well(new_world: NewWorld) -> None:
    world = await new_world(stdout_max_bytes=150_000)
    task = await world.submit()
    run = await world.started()
    run.outgrow(LARGE)
    run.exit(0, LARGE)
    ended = await world.wait(task)
    assert (ended.state, ended.reason, ended.exit_code) == (State.FAILED, Reason.OUTPUT_TOO_LARGE, 0)


async def test_stderr_beyond_its_limit_is_counted_and_dropped(new_world: NewWorld) -> None:
    world = await new_world(stderr_max_bytes=10)
    task = await world.submit()
    run = await world.started()
    run.outgrow(b"", b"12345678")
    run.exit(0, b"", b"90abc")
    ended = await world.wait(task)
    results = await world.manager.results(task.id)
    assert results is not None
    assert (ended.state, ended.stderr_bytes, results.stderr.inline) == (State.SUCCEEDED, 13, b"1234567890")
    assert ended.detail == "of its stderr, 13 bytes, this set keeps the first 10"


async def test_files_are_kept_and_what_is_not_kept_is_said(new_world: NewWorld, tmp_path: Path) -> None:
    world = await new_world(file_max_bytes=200_000)
    contents = {"small": b"pdf", "large": LARGE, "huge": LARGE * 3, "empty": b""}
    opened: list[OpenFile] = []

    def leave(run: FakeRun) -> None:
        for name, data in contents.items():
            (tmp_path / name).write_bytes(data)
            opened.append(OpenFile(os.open(tmp_path / name, os.O_RDONLY)))
        run.exit(0, files=[*opened, NoFile(errno.ENOENT), NoFile(errno.ELOOP)])

    world.executor.program = leave
    paths = tuple(f"/tmp/{name}" for name in (*contents, "missing", "link"))
    task = await world.submit(outputs=paths)
    ended = await world.wait(task)
    assert world.executor.runs[0].work.outputs == tuple(path.encode() for path in paths)
    assert ended.files == {"/tmp/small": 3, "/tmp/large": 100_000, "/tmp/empty": 0}
    assert ended.detail == (
        "output not kept: /tmp/huge: its 300000 bytes are more than the 200000 that are kept of a file; "
        "/tmp/missing: there is no such file; /tmp/link: its path has a symbolic link"
    )
    results = await world.manager.results(task.id)
    assert results is not None
    assert results.files["/tmp/small"].inline == b"pdf"
    large = results.files["/tmp/large"].blob
    assert large is not None
    assert world.blobs.path(large).read_bytes() == LARGE
    held = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    assert len(opened) == len(contents)
    assert not held & {str(tmp_path / name) for name in contents}


async def test_an_outcome_waits_for_a_disk_that_is_full(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    await asyncio.sleep(0.01)
    world.store.trouble = DiskFull()
    run.exit(0, b"precious")
    await until(lambda: world.store.refusals >= 2)
    assert (await world.manager.get("acme", task.id)).state is State.RUNNING
    # Meanwhile its slot serves others.
    assert world.facts()["slots_idle"] == 1
    world.store.trouble = None
    assert (await world.wait(task)).state is State.SUCCEEDED
    assert await world.stdout(task) == b"precious"
    assert len(world.executor.runs) == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_output_that_finds_no_room_is_made_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    write = SpooledBody.write
    full = True

    async def no_room(body: SpooledBody, data: bytes | bytearray | memoryview) -> None:
        if full and len(data) > 32_768:
            raise DiskFull
        await write(body, data)

    monkeypatch.setattr(SpooledBody, "write", no_room)
    task = await world.submit()
    run = await world.started()
    run.outgrow(**{stream: LARGE})
    second = await world.started(2)
    assert run.killed
    full = False
    second.outgrow(LARGE)
    second.exit(0)
    ended = await world.wait(task)
    assert (ended.state, ended.attempts, ended.stdout_bytes) == (State.SUCCEEDED, 2, 100_000)
    world.assert_nothing_left()


async def test_a_disk_that_stays_full_fails_the_task_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_room(body: SpooledBody, data: bytes) -> None:
        raise DiskFull("the set's disk is full")

    monkeypatch.setattr(SpooledBody, "write", no_room)
    world.executor.program = lambda run: run.exit(0, b"out")
    ended = await world.wait(await world.submit())
    assert (ended.state, ended.reason, ended.attempts) == (State.FAILED, Reason.PLATFORM, 3)
    assert ended.detail is not None
    assert "disk is full" in ended.detail


async def test_expiry_removes_rows_and_blobs(new_world: NewWorld) -> None:
    world = await new_world(async_keep_s=0, expire_every_s=0.02)

    def large(run: FakeRun) -> None:
        run.outgrow(LARGE)
        run.exit(0)

    world.executor.program = large
    task = await world.submit()
    await until(lambda: world.ended.tasks)
    assert world.ended.tasks[0].stdout_bytes == 100_000
    await until(lambda: not blob_files(world))
    with pytest.raises(TaskUnknown):
        await world.manager.get("acme", task.id)
