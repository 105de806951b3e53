"""Kept results of async tasks: their limits, disks that are full, and their expiry."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from scheduler.errors import (
    DiskFull,
    TaskUnknown,
)
from scheduler.execution import NoFile
from scheduler.source import OpenFile
from scheduler.store.blobs import SpooledBody
from scheduler.task import Reason, State
from tests.scheduler.conftest import Clock, NewWorld, World, blob_files, until
from tests.scheduler.fakes import FakeRun

LARGE = b"x" * 100_000


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
    world = await new_world(async_keep_s=0, expire_every_s=3600, clock=Clock())

    def large(run: FakeRun) -> None:
        run.outgrow(LARGE)
        run.exit(0)

    world.executor.program = large
    task = await world.submit()
    await until(lambda: world.ended.tasks)
    assert world.ended.tasks[0].stdout_bytes == 100_000
    assert blob_files(world)
    world.pass_time(3600)
    await until(lambda: not blob_files(world))
    with pytest.raises(TaskUnknown):
        await world.manager.get("acme", task.id)
