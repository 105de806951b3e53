"""An account's share of the disk: what counts, what is refused at its bound, and what ends all the same."""

from __future__ import annotations

import pytest

from scheduler.errors import StorageLimit
from scheduler.policy.storage import StorageLimits
from scheduler.store.contract import Body
from scheduler.task import Kind, Reason, State
from tests.scheduler.conftest import Clock, NewWorld, World, until
from tests.scheduler.fakes import FakeRun
from tests.scheduler.output_files import Folder

LARGE = b"x" * 100_000


def bounded(account_bytes: int) -> StorageLimits:
    return StorageLimits(account_bytes=account_bytes)


def used(world: World) -> float:
    return world.facts()["kept_bytes"]


async def test_results_count_until_they_expire(new_world: NewWorld) -> None:
    clock = Clock()
    world = await new_world(
        clock=clock, now_us=lambda: round(clock.now * 1e6), storage=bounded(250_000), async_keep_s=100
    )

    def program(run: FakeRun) -> None:
        run.outgrow(LARGE)
        run.exit(0, LARGE)

    world.executor.program = program
    await world.wait(await world.submit())
    assert 200_000 < used(world) < 210_000
    await world.wait(await world.submit())
    refused = world.spec(Kind.ASYNC)
    with pytest.raises(StorageLimit, match="removed when they expire"):
        world.manager.check_room(refused)
    with pytest.raises(StorageLimit):
        await world.submit()
    world.manager.check_room(world.spec(Kind.ASYNC, account="other"))
    # The answer says when there will be room, and then there is.
    frees_in_s = await world.manager.storage.frees_in_s("acme")
    assert 100 <= frees_in_s <= 110
    world.pass_time(frees_in_s)
    await until(lambda: used(world) == 0)
    world.manager.check_room(refused)


async def test_it_is_known_after_a_restart(new_world: NewWorld) -> None:
    world = await new_world(storage=bounded(180_000))

    def program(run: FakeRun) -> None:
        run.outgrow(LARGE)
        run.exit(0, LARGE)

    world.executor.program = program
    await world.wait(await world.submit())
    before = used(world)
    await world.restart()
    assert used(world) == before > 200_000
    with pytest.raises(StorageLimit):
        await world.submit()


async def test_an_input_counts_until_its_task_ends(new_world: NewWorld) -> None:
    world = await new_world(storage=bounded(150_000))
    writer = world.blobs.body()
    await writer.write(LARGE)
    task = await world.submit(await writer.finish())
    run = await world.started()
    assert used(world) > 100_000
    with pytest.raises(StorageLimit):
        world.manager.check_room(world.spec(Kind.ASYNC), 60_000)
    world.manager.check_room(world.spec(Kind.ASYNC), 40_000)
    run.exit(0)
    await world.wait(task)
    assert used(world) < 5_000


async def test_a_body_that_is_refused_after_all_leaves_nothing(new_world: NewWorld) -> None:
    world = await new_world(storage=bounded(1_000))
    await world.submit(b"x" * 900)
    writer = world.blobs.body()
    await writer.write(LARGE)
    body: Body = await writer.finish()
    with pytest.raises(StorageLimit):
        await world.submit(body)
    assert body.blob is not None
    assert not world.blobs.path(body.blob).exists()


async def test_output_of_an_accepted_task_may_take_a_quarter_more_and_is_cut_then(
    new_world: NewWorld,
) -> None:
    world = await new_world(storage=bounded(100_000))
    task = await world.submit()
    run = await world.started()
    run.outgrow(LARGE)
    run.stdout.feed(LARGE)
    ended = await world.wait(task)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.OUTPUT_TOO_LARGE)
    assert ended.detail is not None
    assert ended.detail.endswith(
        "this set keeps the first 100000, which is what is left of the storage of its account in this set"
    )
    assert run.killed
    assert used(world) < 110_000, "nothing is held for a task that has ended"


async def test_stderr_of_a_running_task_counts_and_is_cut_where_the_account_may_keep_no_more(
    new_world: NewWorld,
) -> None:
    world = await new_world(storage=bounded(100_000))
    task = await world.submit()
    run = await world.started()
    run.outgrow(b"", LARGE)
    await until(lambda: used(world) > len(LARGE))
    run.stderr.feed(LARGE)
    run.exit(0)
    ended = await world.wait(task)
    assert (ended.state, ended.stderr_bytes) == (State.SUCCEEDED, 2 * len(LARGE))
    assert ended.detail == (
        "of its stderr, 200000 bytes, this set keeps the first 100000, which is what is left of the storage of its "
        "account in this set"
    )
    assert used(world) < 110_000, "nothing is held for a task that has ended"


@pytest.mark.parametrize("kind", Kind)
async def test_output_files_beyond_it_are_not_kept(new_world: NewWorld, folder: Folder, kind: Kind) -> None:
    world = await new_world(storage=bounded(50_000))
    world.executor.program = lambda run: run.exit(0, files=folder.both())
    if kind is Kind.SYNC:
        task, _ = await world.run(outputs=("/tmp/small", "/tmp/large"))
    else:
        task = await world.wait(await world.submit(outputs=("/tmp/small", "/tmp/large")))
    assert (task.state, task.files) == (State.SUCCEEDED, {"/tmp/small": 5})
    assert task.detail is not None
    assert "100000 bytes are more than what is left of the storage of its account" in task.detail
    assert used(world) < 5_000


async def test_a_lost_attempts_output_is_not_held(new_world: NewWorld) -> None:
    world = await new_world(storage=bounded(150_000), max_attempts=2)
    task = await world.submit()
    first = await world.started()
    first.outgrow(LARGE)
    await until(lambda: used(world) > 100_000)
    first.lose()
    second = await world.started(2)
    assert used(world) < 5_000
    second.exit(0)
    assert (await world.wait(task)).state is State.SUCCEEDED


async def test_a_sync_task_without_files_goes_on_at_the_bound(new_world: NewWorld) -> None:
    world = await new_world(storage=bounded(100_000))
    await world.submit(b"x" * 1000)
    (await world.started()).exit(0)
    writer = world.blobs.body()
    await writer.write(b"x" * 95_000)
    await world.submit(await writer.finish())
    with pytest.raises(StorageLimit):
        world.manager.check_room(world.spec(Kind.ASYNC), 10_000)
    world.manager.check_room(world.spec(Kind.SYNC))
