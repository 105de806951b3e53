"""Output files of a task where the disk has no room, or the caller goes away."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.errors import DiskFull, FilesNotKept, NotRecorded, StoreError
from scheduler.execution import How
from scheduler.source import Source
from scheduler.store.blobs import SpooledBody
from scheduler.task import Reason, State
from tests.scheduler.conftest import NewWorld, World, blob_files, until
from tests.scheduler.fakes import CAT, FakeRun
from tests.scheduler.output_files import LARGE, PATHS, Folder, content

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
