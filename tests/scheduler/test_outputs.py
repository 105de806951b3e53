"""Output files, as conversations between a caller, the task manager and slots."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.errors import DiskFull, FilesNotKept, NotRecorded, StoreError, TaskUnknown
from scheduler.execution import How, NoFile
from scheduler.outputs import DETAIL_CHARS
from scheduler.source import OpenFile, Source
from scheduler.store.blobs import SpooledBody
from scheduler.store.contract import Results
from scheduler.task import Reason, State, Task
from tests.scheduler.conftest import NewWorld, World, until
from tests.scheduler.fakes import CAT, Elsewhere, FakeRun

SMALL = b"small"
LARGE = os.urandom(100_000)
PATHS = ("/tmp/small", "/tmp/large")


class Folder:
    """Files as a slot hands them over."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, name: str, data: bytes) -> OpenFile:
        (self.path / name).write_bytes(data)
        return OpenFile(os.open(self.path / name, os.O_RDONLY))

    def both(self) -> list[OpenFile]:
        return [self.open("small", SMALL), self.open("large", LARGE)]

    @property
    def still_open(self) -> set[str]:
        held = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
        return {name for name in os.listdir(self.path) if str(self.path / name) in held}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "slot"
    path.mkdir()
    return Folder(path)


async def content(world: World, task: Task, path: str) -> bytes:
    results = await world.manager.results(task.id)
    assert results is not None
    body = results.files[path]
    data = body.inline if body.blob is None else world.blobs.path(body.blob).read_bytes()
    assert data is not None
    assert len(data) == body.size_bytes == task.files[path]
    return data


def blob_files(world: World) -> list[Path]:
    return [path for path in world.blobs.directory.rglob("*") if path.is_file()]


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


# -- a disk without room


async def test_a_set_without_room_runs_nothing_whose_files_it_could_not_keep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> None:
        raise DiskFull

    monkeypatch.setattr(world.blobs, "check_space", no_room)
    with pytest.raises(DiskFull) as refused:
        await world.run(outputs=PATHS)
    assert not refused.value.executed
    assert world.executor.runs == []
    world.executor.program = lambda run: run.exit(0)
    assert (await world.run())[0].state is State.SUCCEEDED
    world.assert_nothing_left()


def refuse_large(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    write_source = SpooledBody.write_source

    async def no_room(body: SpooledBody, source: Source) -> None:
        if source.size_bytes > 32_768:
            raise error
        await write_source(body, source)

    monkeypatch.setattr(SpooledBody, "write_source", no_room)


@pytest.mark.parametrize("error", [DiskFull, StoreError])
@pytest.mark.parametrize("handed_over", [False, True])
@pytest.mark.parametrize("head_bytes", [10, 65_536])
async def test_files_that_find_no_room_break_the_answer_and_cost_nothing(
    world: World,
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    handed_over: bool,
    head_bytes: int,
) -> None:
    refuse_large(monkeypatch, error)

    def leave(run: FakeRun) -> None:
        if handed_over:
            run.outgrow(b"o" * 100)
        run.exit(0, b"ut", files=folder.both())

    world.executor.program = leave

    async def call() -> None:
        spec = world.spec(outputs=PATHS)
        live, _, ended = await world.manager.run(spec, CAT, b"", queue_timeout_s=5, head_bytes=head_bytes)
        if not ended:
            assert handed_over
            async for _ in live.rest():
                pass
        await world.manager.finish(live)

    with pytest.raises(FilesNotKept, match="not billed") as lost:
        await call()
    assert lost.value.executed
    (task,) = world.ended.tasks
    assert (task.state, task.reason, task.cpu_us, task.files) == (State.FAILED, Reason.PLATFORM, 0, {})
    assert await world.store.get(task.id) == task
    assert folder.still_open == set()
    assert blob_files(world) == []
    assert len(world.executor.runs) == 1
    world.assert_nothing_left()
    # The slot is as good as before.
    world.executor.program = lambda run: run.exit(0, b"next")
    assert (await world.run())[1] == b"next"


async def test_files_of_an_attempt_that_found_no_room_are_not_left_behind(
    world: World, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = SpooledBody.finish
    attempts = 0

    async def last_is_refused(body: SpooledBody) -> object:
        nonlocal attempts
        if body.size_bytes == 99_999 and attempts < 2:
            attempts += 1
            raise DiskFull
        return await finish(body)

    monkeypatch.setattr(SpooledBody, "finish", last_is_refused)
    world.executor.program = lambda run: run.exit(
        0, files=[*folder.both()[1:], folder.open("last", LARGE[1:])]
    )
    ended = await world.wait(await world.submit(outputs=("/tmp/large", "/tmp/last")))
    assert (ended.state, ended.attempts, attempts) == (State.SUCCEEDED, 3, 2)
    assert len(blob_files(world)) == 2


async def test_a_record_that_cannot_be_written_leaves_no_files(new_world: NewWorld, folder: Folder) -> None:
    world = await new_world(record_patience_s=0.01)
    world.store.trouble = DiskFull()
    world.executor.program = lambda run: run.exit(0, files=folder.both())
    with pytest.raises(NotRecorded):
        await world.run(outputs=PATHS)
    assert blob_files(world) == []
    world.assert_nothing_left()


async def test_a_second_record_that_cannot_be_written_leaves_the_files_of_the_first(
    new_world: NewWorld, folder: Folder
) -> None:
    world = await new_world(record_patience_s=0.01)
    world.executor.program = lambda run: run.outgrow(b"x" * 20)
    live, _, _ = await world.manager.run(
        world.spec(outputs=PATHS), CAT, b"", queue_timeout_s=5, head_bytes=10
    )
    world.executor.runs[0].exit(0, b"rest", files=folder.both())
    await until(lambda: world.ended.tasks)
    world.store.trouble = DiskFull()
    assert b"".join([chunk async for chunk in live.rest()]) == b"rest"
    with pytest.raises(NotRecorded):
        await world.manager.finish(live)
    task = await world.store.get(live.task.id)
    assert task is not None
    assert await content(world, task, "/tmp/large") == LARGE


# -- a caller that goes away


@pytest.fixture
def slow_copies(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Set when a copy has begun; it goes on when the second is set."""
    write_source = SpooledBody.write_source
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(body: SpooledBody, source: Source) -> None:
        begun.set()
        await go_on.wait()
        await write_source(body, source)

    monkeypatch.setattr(SpooledBody, "write_source", slow)
    return begun, go_on


async def test_a_caller_that_leaves_while_files_are_kept_does_not_break_them_off(
    world: World, folder: Folder, slow_copies: tuple[asyncio.Event, asyncio.Event]
) -> None:
    begun, go_on = slow_copies
    world.executor.program = lambda run: run.exit(0, files=folder.both())
    running = world.begin(outputs=PATHS)
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    go_on.set()
    await until(lambda: world.ended.tasks)
    (task,) = world.ended.tasks
    assert task.state is State.SUCCEEDED
    assert await content(world, task, "/tmp/large") == LARGE
    assert folder.still_open == set()
    world.assert_nothing_left()


async def test_a_caller_that_leaves_before_the_end_wants_no_files(world: World, folder: Folder) -> None:
    running = world.begin(outputs=PATHS)
    run = await world.started()
    run.obeys = False
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: run.killed)
    run.exit(9, how=How.SIGNALLED, killed=True, files=folder.both())
    await until(lambda: world.ended.tasks)
    (task,) = world.ended.tasks
    assert (task.state, task.reason, task.files) == (State.CANCELLED, Reason.CLIENT_GONE, {})
    assert folder.still_open == set()
    assert blob_files(world) == []
    world.assert_nothing_left()


async def test_a_set_that_stops_waits_for_files_that_are_being_kept(
    world: World, folder: Folder, slow_copies: tuple[asyncio.Event, asyncio.Event]
) -> None:
    begun, go_on = slow_copies
    world.executor.program = lambda run: run.exit(0, b"out", files=folder.both())
    running = world.begin(outputs=PATHS)
    await begun.wait()
    closing = asyncio.create_task(world.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    go_on.set()
    task, out = await running
    await closing
    assert (task.state, out) == (State.SUCCEEDED, b"out")
    await world.restart()
    assert await content(world, task, "/tmp/large") == LARGE


async def test_an_async_attempt_that_is_broken_off_by_a_stop_leaves_no_files(
    world: World, folder: Folder, slow_copies: tuple[asyncio.Event, asyncio.Event]
) -> None:
    begun, _ = slow_copies
    world.executor.program = lambda run: run.exit(0, files=folder.both())
    task = await world.submit(outputs=PATHS)
    await begun.wait()
    world.manager._async.stop()
    await world.manager._async.close(0)
    assert folder.still_open == set()
    assert blob_files(world) == []
    assert not (await world.manager.get("acme", task.id)).ended


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
