"""Which output files of a task are kept, what is said of the others, and how long they are there."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

import pytest

from scheduler.errors import TaskUnknown
from scheduler.execution import How, NoFile
from scheduler.outputs import DETAIL_CHARS
from scheduler.source import OpenFile
from scheduler.store.contract import Results
from scheduler.task import Reason, State
from tests.scheduler.conftest import NewWorld, World, blob_files, until
from tests.scheduler.fakes import CAT, Elsewhere, FakeRun
from tests.scheduler.output_files import LARGE, PATHS, SMALL, Folder, content


async def test_files_of_a_sync_task_are_there_when_its_answer_may_end(world: World, folder: Folder) -> None:
    world.executor.program = lambda run: run.exit(0, b"out", files=folder.both())
    task, out = await world.run(outputs=PATHS)
    assert world.executor.runs[0].work.outputs == (b"/tmp/small", b"/tmp/large")
    assert (task.state, out, task.detail) == (State.SUCCEEDED, b"out", None)
    assert task.files == {"/tmp/small": 5, "/tmp/large": 100_000}
    assert await world.store.get(task.id) == task
    assert await content(world, task, "/tmp/small") == SMALL
    assert await content(world, task, "/tmp/large") == LARGE
    results = await world.manager.results(task.id)
    assert results is not None
    assert (results.stdout.size_bytes, results.stderr.size_bytes) == (0, 0)
    assert folder.still_open == set()
    world.assert_nothing_left()


async def test_files_that_lie_on_another_machine_are_kept_alike(world: World) -> None:
    elsewhere = [Elsewhere(SMALL), Elsewhere(LARGE), Elsewhere(b"")]
    world.executor.program = lambda run: run.exit(0, files=elsewhere)
    task, _ = await world.run(outputs=(*PATHS, "/tmp/empty"))
    assert task.files == {"/tmp/small": 5, "/tmp/large": 100_000, "/tmp/empty": 0}
    assert await content(world, task, "/tmp/small") == SMALL
    assert await content(world, task, "/tmp/large") == LARGE
    assert all(each.closed for each in elsewhere)


async def test_a_file_whose_machine_goes_away_is_not_kept(world: World) -> None:
    world.executor.program = lambda run: run.exit(
        0, files=[Elsewhere(LARGE, breaks_at=50_000), Elsewhere(SMALL)]
    )
    task, _ = await world.run(outputs=("/tmp/large", "/tmp/small"))
    assert (task.state, task.files) == (State.SUCCEEDED, {"/tmp/small": 5})
    assert task.detail == "output not kept: /tmp/large: its node is gone"
    assert blob_files(world) == []


async def test_a_task_that_asks_for_none_has_no_results(world: World) -> None:
    world.executor.program = lambda run: run.exit(0, b"out")
    task, _ = await world.run()
    assert await world.manager.results(task.id) is None
    assert task.files == {}


async def test_a_slow_reader_keeps_neither_files_open_nor_the_record_waiting(
    world: World, folder: Folder
) -> None:
    starting = asyncio.create_task(
        world.manager.run(world.spec(outputs=PATHS), CAT, b"", queue_timeout_s=5, head_bytes=10)
    )
    run = await world.started()
    run.outgrow(b"x" * 20)
    live, _, ended = await starting
    assert not ended
    run.exit(0, b"rest", files=folder.both())
    await until(lambda: world.ended.tasks)
    assert folder.still_open == set()
    assert await content(world, world.ended.tasks[0], "/tmp/large") == LARGE
    assert b"".join([chunk async for chunk in live.rest()]) == b"rest"
    task = await world.manager.finish(live)
    # Written a second time, with all that was read.
    kept = await world.store.get(task.id)
    assert kept == task
    assert (task.stdout_bytes, task.files) == (24, {"/tmp/small": 5, "/tmp/large": 100_000})
    assert await content(world, task, "/tmp/large") == LARGE
    assert len(blob_files(world)) == 1


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [
        (lambda run, files: run.exit(3, files=files), State.FAILED, Reason.EXIT),
        (lambda run, files: run.exit(11, how=How.SIGNALLED, files=files), State.FAILED, Reason.SIGNAL),
    ],
)
async def test_files_of_a_task_that_failed(
    world: World,
    folder: Folder,
    end: Callable[[FakeRun, list[OpenFile]], None],
    state: State,
    reason: Reason,
) -> None:
    world.executor.program = lambda run: end(run, folder.both())
    task, _ = await world.run(outputs=PATHS)
    assert (task.state, task.reason) == (state, reason)
    assert await content(world, task, "/tmp/large") == LARGE


async def test_what_is_not_kept_is_said_and_fails_nothing(new_world: NewWorld, folder: Folder) -> None:
    world = await new_world(file_max_bytes=200_000, files_max_bytes=250_000)

    def leave(run: FakeRun) -> None:
        opened = [folder.open(f"{n}", bytes(n)) for n in (200_001, 200_000, 50_001, 50_000, 0)]
        unreadable = OpenFile(os.open(folder.path / "50000", os.O_WRONLY))
        errnos = (errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.EACCES, errno.ENOTDIR)
        run.exit(0, files=[*opened, unreadable, *map(NoFile, errnos)])

    world.executor.program = leave
    names = ("over", "most", "too-much", "rest", "empty", "wo", "none", "link", "fifo", "mode", "way")
    task, _ = await world.run(outputs=tuple(f"/{name}" for name in names))
    assert task.state is State.SUCCEEDED
    assert task.files == {"/most": 200_000, "/rest": 50_000, "/empty": 0}
    assert task.detail is not None
    assert task.detail.removeprefix("output not kept: ").split("; ") == [
        "/over: its 200001 bytes are more than the 200000 that are kept of a file",
        "/too-much: its 50001 bytes are more than what is left of the 250000 that are kept of a task's files",
        "/wo: its 50000 bytes are more than what is left of the 250000 that are kept of a task's files",
        "/none: there is no such file",
        "/link: its path has a symbolic link",
        "/fifo: it is not a regular file of the image or of a writable place",
        "/mode: the program's own user may not read it",
        "/way: Not a directory",
    ]
    assert folder.still_open == set()
    assert len(blob_files(world)) == 2


async def test_a_file_that_cannot_be_read_is_not_kept(world: World, folder: Folder) -> None:
    """Only a guest that is no longer ours hands such a thing over."""

    def leave(run: FakeRun) -> None:
        paths = [folder.path / name for name in ("small", "large")]
        for path, data in zip(paths, (SMALL, LARGE), strict=True):
            path.write_bytes(data)
        run.exit(0, files=[OpenFile(os.open(path, os.O_WRONLY)) for path in paths])

    world.executor.program = leave
    task, _ = await world.run(outputs=PATHS)
    assert (task.state, task.files) == (State.SUCCEEDED, {})
    assert task.detail is not None
    assert task.detail.count("it cannot be read: Bad file descriptor") == 2
    assert blob_files(world) == []


async def test_a_long_list_of_what_is_not_kept_is_marked_where_it_is_cut(world: World) -> None:
    world.executor.program = lambda run: run.exit(0, files=[NoFile(errno.ENOENT)] * 20)
    task, _ = await world.run(outputs=tuple(f"/tmp/{number}{'n' * 200}" for number in range(20)))
    assert task.detail is not None
    assert (len(task.detail), task.detail[-2:]) == (DETAIL_CHARS, "n…")


async def test_a_path_that_is_asked_for_twice_is_kept_once(world: World, folder: Folder) -> None:
    world.executor.program = lambda run: run.exit(0, files=[*folder.both()[1:], *folder.both()[1:]])
    task, _ = await world.run(outputs=("/tmp/large", "/tmp/large"))
    assert task.files == {"/tmp/large": 100_000}
    assert len(blob_files(world)) == 1
    assert world.blobs.being_written == set()


# -- how long they are kept


async def test_files_of_a_sync_task_go_with_its_row(new_world: NewWorld, folder: Folder) -> None:
    world = await new_world(sync_keep_s=0, expire_every_s=0.02)
    world.executor.program = lambda run: run.exit(0, files=folder.both())
    task, _ = await world.run(outputs=PATHS)
    await until(lambda: not blob_files(world))
    with pytest.raises(TaskUnknown):
        await world.manager.get("acme", task.id)
    assert await world.manager.results(task.id) is None
    assert await world.store.blobs_in_use() == set()


async def test_files_of_a_sync_task_survive_a_restart_and_its_sweep(world: World, folder: Folder) -> None:
    world.executor.program = lambda run: run.exit(0, files=folder.both())
    task, _ = await world.run(outputs=PATHS)
    orphan = world.blobs.body()
    await orphan.write(LARGE)
    assert (await orphan.finish()).blob is not None
    for path in blob_files(world):
        os.utime(path, (0, 0))
    assert len(blob_files(world)) == 2
    await world.restart()
    await until(lambda: len(blob_files(world)) == 1)
    assert await content(world, task, "/tmp/large") == LARGE


async def test_results_written_again_keep_their_blobs(world: World, folder: Folder) -> None:
    world.executor.program = lambda run: run.exit(0, files=folder.both())
    task, _ = await world.run(outputs=PATHS)
    results = await world.manager.results(task.id)
    assert isinstance(results, Results)
    await world.store.finish(task, results)
    assert await world.store.expire(0, 100) == []
    assert await content(world, task, "/tmp/large") == LARGE
