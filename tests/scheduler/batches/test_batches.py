"""A batch from its inputs to its outcomes: each input has exactly one, whatever happens in between."""

from __future__ import annotations

import asyncio
import random

import pytest

from scheduler.batch import Batch, BatchState, Format, state_of
from scheduler.batches import window
from scheduler.batches.batches import BatchLimits
from scheduler.errors import (
    AccountLimit,
    BadRequest,
    BatchUnknown,
    Draining,
    IdempotencyConflict,
    StoreError,
)
from scheduler.policy.limits import Limits
from scheduler.policy.storage import StorageLimits
from scheduler.store.contract import IDEMPOTENCY_WINDOW_US, Idempotency
from scheduler.task import State
from scheduler.timeline import moments_of
from tests.scheduler.batches.conftest import BatchWorld, lines, numbered, tar
from tests.scheduler.conftest import blob_files, until
from tests.scheduler.fakes import FakeRun, cat


def odd_fails(run: FakeRun) -> None:
    """A program that fails for odd numbers."""
    data = run.work.stdin or b""
    if int(data) % 2:
        run.exit(1, b"", b"it is odd")
    else:
        run.exit(0, data)


async def test_each_line_is_a_task_with_its_arguments_variables_name_and_input(world: BatchWorld) -> None:
    world.executor.program = cat
    batch = await world.send(
        lines(
            {"args": ["-l", "eng"], "env": {"A": "2", "B": "3"}, "name": "scans/page-1", "input": "ä"},
            {"input_base64": "AAH/"},
            {},
        ),
        args=("-v",),
        env=("A=1",),
    )
    assert (batch.inputs, batch.made) == (3, 0)
    await world.succeeded(batch)
    assert await world.outputs(batch) == {
        "scans/page-1": "ä".encode(),
        "000002": b"\x00\x01\xff",
        "000003": b"",
    }
    works = {run.work.stdin: run.work for run in world.executor.runs}
    assert works["ä".encode()].argv == (b"/cat", b"-v", b"-l", b"eng")
    assert works["ä".encode()].env == (b"A=2", b"B=3")
    assert works[b""].argv == (b"/cat", b"-v")


async def test_a_task_has_its_input_from_the_beginning(world: BatchWorld) -> None:
    world.executor.program = cat
    batch = await world.send(numbered(1))
    await world.succeeded(batch)
    ((_, task),) = await world.batches.ended("acme", batch.id, 0, 10)
    assert moments_of(task)["input_ready"] == task.created_us


async def test_each_file_of_an_archive_is_the_input_of_a_task(world: BatchWorld) -> None:
    def count(run: FakeRun) -> None:
        async def read() -> None:
            data = run.work.stdin
            if data is None:
                pipe = run.stdin
                assert pipe is not None
                await until(lambda: pipe.closed)
                data = bytes(pipe.data)
            run.exit(0, b"%d" % len(data))

        reads.append(asyncio.ensure_future(read()))

    reads: list[asyncio.Future[None]] = []
    world.executor.program = count
    long_name = "/".join(["a-folder-with-a-long-name"] * 8) + "/x"
    sizes = {"small.txt": 3, "large.bin": 300_000, "empty": 0, long_name: 5}
    batch = await world.send(tar([("./" + name, bytes(size)) for name, size in sizes.items()]), Format.TAR)
    await world.succeeded(batch)
    assert await world.outputs(batch) == {name: b"%d" % size for name, size in sizes.items()}
    # Nothing failed, so nothing can be run again: neither the spool nor an input is kept.
    assert await world.store.blobs_in_use() == set()


async def test_only_a_window_of_the_tasks_is_there_at_any_time(world: BatchWorld) -> None:
    batch = await world.send(numbered(600))
    await until(lambda: len(world.executor.running) == 2)
    most = 0

    def one_more(run: FakeRun) -> None:
        nonlocal most
        most = max(most, len(world.manager._roster.entries))
        cat(run)

    world.executor.program = one_more
    for run in world.executor.running:
        one_more(run)
    await world.succeeded(batch)
    assert 2 <= most <= 2 * window.LEAST
    outputs = await world.outputs(batch)
    assert outputs == {f"{number:06d}": b"%d" % number for number in range(1, 601)}
    assert len(world.executor.runs) == 600
    world.assert_nothing_left()


async def test_a_failed_input_is_run_again_by_a_retry_and_by_nothing_else(world: BatchWorld) -> None:
    world.executor.program = odd_fails
    batch = await world.send(numbered(40))
    progress = await world.over(batch)
    assert state_of(progress.batch, progress.counts) is BatchState.FAILED
    assert progress.counts.states == {State.SUCCEEDED: 20, State.FAILED: 20}
    world.executor.program = cat
    progress = await world.batches.retry("acme", batch.id)
    assert progress.counts.waiting(progress.batch) + progress.counts.live <= 20
    await world.succeeded(batch)
    assert len(world.executor.runs) == 60
    outputs = await world.outputs(batch)
    assert outputs == {f"{number:06d}": b"%d" % number for number in range(1, 41)}
    # Those that were run again have their places behind all others.
    assert int(list(outputs.values())[-1]) % 2
    after = await world.batches.retry("acme", batch.id)
    assert after.batch.ended_us is not None
    assert len(world.executor.runs) == 60
    # The failed tasks are kept for as long as others that failed.
    failed = [task for task in world.ended.tasks if task.state is State.FAILED]
    kept = await world.manager.get("acme", failed[0].id)
    assert kept.expires_us is not None


async def test_a_cancelled_batch_ends_its_tasks_and_makes_no_more(world: BatchWorld) -> None:
    batch = await world.send(numbered(500))
    await until(lambda: len(world.executor.running) == 2)
    progress = await world.batches.cancel("acme", batch.id)
    assert state_of(progress.batch, progress.counts) is BatchState.CANCELLED
    assert progress.counts.cancelled(progress.batch) == 500
    assert progress.counts.waiting(progress.batch) == 0
    assert len(world.executor.runs) == 2
    world.assert_nothing_left()
    # It goes on where it was cancelled.
    world.executor.program = cat
    await world.batches.retry("acme", batch.id)
    await world.succeeded(batch)
    assert len(await world.outputs(batch)) == 500


async def test_a_cancel_that_comes_while_a_batch_ends_changes_nothing(
    world: BatchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, go_on = asyncio.Event(), asyncio.Event()
    save = world.store.batches.save

    async def slow(batch: Batch) -> None:
        if batch.ended_us is not None:
            ending.set()
            await go_on.wait()
        await save(batch)

    monkeypatch.setattr(world.store.batches, "save", slow)
    world.executor.program = cat
    batch = await world.send(numbered(5))
    await until(ending.is_set)
    expansion = world.batches._open[batch.id]
    cancelling = asyncio.create_task(world.batches.cancel("acme", batch.id))
    await until(lambda: bool(expansion.turn._waiters))
    go_on.set()
    await cancelling
    await world.succeeded(batch)


async def test_a_killed_set_goes_on_and_no_input_is_lost_or_run_twice(world: BatchWorld) -> None:
    """The set is stopped at random moments: what is on disk then is all that the next run has."""
    chance = random.Random(7)
    batch = await world.send(numbered(300))
    for _ in range(6):
        until_run = len(world.executor.runs) + chance.randrange(60)
        world.executor.program = cat
        for run in world.executor.running:
            cat(run)
        await until(lambda most=until_run: len(world.executor.runs) >= most or not world.batches._open)  # type: ignore[misc]
        await world.restart()
    world.executor.program = cat
    for run in world.executor.running:
        cat(run)
    await world.succeeded(batch)
    outputs = await world.outputs(batch)
    assert outputs == {f"{number:06d}": b"%d" % number for number in range(1, 301)}


async def test_tasks_that_run_again_after_a_restart_count_as_running(world: BatchWorld) -> None:
    """Otherwise a batch would make none until nearly all of them have ended, and slots would lie idle."""
    limits = Limits(cpu_percent=4_000, max_slots=40, memory_mib=100_000, start_backoff_s=0.01)
    await world.restart(limits=limits)
    batch = await world.send(numbered(200))
    await until(lambda: len(world.executor.running) == 40)
    # As many wait as run, at most.
    await until(lambda: world.batches._open[batch.id].batch.made >= 60)
    await world.restart(limits=limits)
    await until(lambda: len(world.executor.running) == 40)
    expansion = world.batches._open[batch.id]
    before, live = expansion.batch.made, len(expansion.live)
    ends = live - 40 - 15
    assert ends < 40
    for run in world.executor.running[:ends]:
        cat(run)
    await until(lambda: expansion.batch.made > before)
    world.executor.program = cat
    for run in world.executor.running:
        cat(run)
    await world.succeeded(batch)


@pytest.mark.parametrize("stored", [False, True])
async def test_a_bug_while_tasks_are_made_leaves_no_task_that_never_ends(
    world: BatchWorld, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    world.executor.program = cat
    fill, bugs = world.store.batches.fill, 0

    async def buggy(*args: object) -> None:
        nonlocal bugs
        if not bugs or stored:
            await fill(*args)  # type: ignore[arg-type]
        bugs += 1
        if bugs == 2:
            raise ValueError("a bug")
        if bugs > 2 and not stored:
            await fill(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("scheduler.batches.expansion.AGAIN", [0.01] * 10)
    monkeypatch.setattr(world.store.batches, "fill", buggy)
    batch = await world.send(numbered(60))
    ran = 0
    if stored:
        # The tasks of the second write are on disk, and this run of the set knows nothing of them.
        expansion = world.batches._open[batch.id]
        await until(
            lambda: bugs == 2 and len(expansion.live) == expansion.batch.made - len(world.executor.runs)
        )
        ran = len(world.executor.runs)
        await world.restart()
        world.executor.program = cat
        for run in world.executor.running:
            cat(run)
    await world.succeeded(batch)
    assert await world.outputs(batch) == {f"{number:06d}": b"%d" % number for number in range(1, 61)}
    assert ran + len(world.executor.runs) == 60


async def test_a_retry_of_one_batch_waits_for_no_other(
    world: BatchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.executor.program = odd_fails
    slow, quick = [await world.send(numbered(3)) for _ in range(2)]
    for batch in (slow, quick):
        await world.over(batch)
    world.executor.program = cat
    save, go_on = world.store.batches.save, asyncio.Event()
    held: list[Batch] = []

    async def maybe_slow(batch: Batch) -> None:
        if batch.id == slow.id and batch.ended_us is None:
            held.append(batch)
            await go_on.wait()
        await save(batch)

    monkeypatch.setattr(world.store.batches, "save", maybe_slow)
    twins = [asyncio.create_task(world.batches.retry("acme", slow.id)) for _ in range(2)]
    await until(lambda: bool(held))
    await world.batches.retry("acme", quick.id)
    await world.succeeded(quick)
    go_on.set()
    await asyncio.gather(*twins)
    assert [batch.round for batch in held] in ([1], [1, 2])
    await world.succeeded(slow)


async def test_a_cancelled_batch_stays_cancelled_after_a_restart(world: BatchWorld) -> None:
    batch = await world.send(numbered(100))
    await until(lambda: len(world.executor.running) == 2)
    # The set dies between the order and the ends of the tasks.
    stored = await world.store.batches.get(batch.id)
    assert stored is not None
    await world.close()
    await world.store.open()
    stored.cancelled = True
    await world.store.batches.save(stored)
    await world.store.close()
    world.make()
    await world.open()
    progress = await world.over(batch)
    assert progress.counts.cancelled(progress.batch) == 100
    world.assert_nothing_left()


async def test_a_retry_survives_a_restart(world: BatchWorld) -> None:
    world.executor.program = odd_fails
    batch = await world.send(numbered(100))
    await world.over(batch)
    world.executor.program = None
    await world.batches.retry("acme", batch.id)
    await world.restart()
    world.executor.program = cat
    for run in world.executor.running:
        cat(run)
    await world.succeeded(batch)
    assert len(await world.outputs(batch)) == 100


async def test_a_set_that_drains_makes_no_tasks_until_it_resumes(world: BatchWorld) -> None:
    world.manager.drain()
    with pytest.raises(Draining):
        await world.send(numbered(3))
    world.manager.resume()
    batch = await world.send(numbered(100))
    await until(lambda: len(world.executor.running) == 2)
    world.manager.drain()
    world.executor.program = cat
    for run in world.executor.running:
        cat(run)
    await until(lambda: not world.executor.running)
    made = (await world.batches.get("acme", batch.id)).batch.made
    assert made < 100
    world.manager.resume()
    await world.succeeded(batch)


async def test_the_same_key_makes_one_batch(world: BatchWorld) -> None:
    world.executor.program = cat
    key = Idempotency("key", b"digest")
    twins = await asyncio.gather(*(world.send(numbered(50), idempotency=key) for _ in range(20)))
    assert len({batch.id for batch in twins}) == 1
    await world.succeeded(twins[0])
    assert len(world.executor.runs) == 50
    again = await world.send(numbered(50), idempotency=key)
    assert again.id == twins[0].id
    assert (await world.batches.keyed("acme", "key")).batch.id == again.id
    with pytest.raises(IdempotencyConflict):
        await world.send(numbered(51), idempotency=Idempotency("key", b"other"))
    with pytest.raises(IdempotencyConflict):
        await world.submit(idempotency=key)
    await world.wait(await world.submit(idempotency=Idempotency("task", b"digest")))
    with pytest.raises(IdempotencyConflict):
        await world.send(numbered(5), idempotency=Idempotency("task", b"digest"))


async def test_a_batch_with_a_key_is_kept_as_long_as_the_key(world: BatchWorld) -> None:
    world.batch_limits = BatchLimits(keep_s=60)
    await world.restart()
    world.executor.program = cat
    key = Idempotency("key", b"digest")
    keyed, other = await world.send(numbered(2), idempotency=key), await world.send(numbered(2))
    for batch in (keyed, other):
        await world.succeeded(batch)
    await world.store.expire(keyed.created_us + IDEMPOTENCY_WINDOW_US - 1, 1_000)
    with pytest.raises(BatchUnknown):
        await world.batches.get("acme", other.id)
    assert (await world.send(numbered(2), idempotency=key)).id == keyed.id
    assert len(await world.batches.ended("acme", keyed.id, 0, 10)) == 2
    expires_us = (await world.batches.get("acme", keyed.id)).batch.expires_us
    assert expires_us is not None
    await world.store.expire(expires_us, 1_000)
    with pytest.raises(BatchUnknown):
        await world.batches.get("acme", keyed.id)


async def test_other_accounts_see_nothing_of_it(world: BatchWorld) -> None:
    batch = await world.send(numbered(5))
    for call in (world.batches.get, world.batches.cancel, world.batches.retry):
        with pytest.raises(BatchUnknown):
            await call("other", batch.id)
    with pytest.raises(BatchUnknown):
        await world.batches.ended("other", batch.id, 0, 10)
    with pytest.raises(BatchUnknown):
        await world.batches.keyed("other", "key")


async def test_the_account_may_still_submit_single_tasks(world: BatchWorld) -> None:
    world.batch_limits = BatchLimits(account_most=10)
    await world.restart(limits=Limits(max_waiting_account=20, start_backoff_s=0.01))
    first = await world.send(numbered(100))
    second = await world.send(numbered(100))
    await until(lambda: len(world.executor.running) == 2)
    assert len(world.manager._roster.entries) == 10
    single = await world.submit(b"single")
    world.executor.program = cat
    for run in world.executor.running:
        cat(run)
    await world.wait(single)
    await world.succeeded(first)
    await world.succeeded(second)


async def test_an_account_has_a_limited_number_of_batches_until_they_expire(world: BatchWorld) -> None:
    world.batch_limits = BatchLimits(account=2, keep_s=60)
    await world.restart()
    world.executor.program = lambda run: run.exit(1, bytes(50_000))
    data = tar([("x", bytes(100_000)), ("y", b"")])
    kept = [await world.send(data, Format.TAR) for _ in range(2)]
    with pytest.raises(AccountLimit, match="has 2 batches, as many as it may"):
        await world.send(data, Format.TAR)
    for batch in kept:
        await world.over(batch)
    # The spools, so that what failed can be run again, and the outputs.
    assert len(await world.store.blobs_in_use()) == 6
    assert 2 * len(data) < world.store.kept.of("acme") < 2 * len(data) + 4 * 50_000 + 50_000
    # The first attempts expire by themselves.
    await world.batches.retry("acme", kept[0].id)
    await world.over(kept[0])
    for _ in range(20):
        await world.blobs.delete(await world.store.expire(world.now_us() + 61_000_000, 1))
    for batch in kept:
        with pytest.raises(BatchUnknown):
            await world.batches.get("acme", batch.id)
    assert await world.store.blobs_in_use() == set()
    assert blob_files(world) == []
    assert world.store.kept.of("acme") == 0
    await world.send(data, Format.TAR)


async def test_many_small_batches_expire_in_one_round(world: BatchWorld) -> None:
    world.executor.program = cat
    batches = [await world.send(numbered(1)) for _ in range(10)]
    for batch in batches:
        await world.over(batch)
    expires_us = (await world.over(batches[-1])).batch.expires_us
    assert expires_us is not None
    await world.store.expire(expires_us, 1_000)
    for batch in batches:
        with pytest.raises(BatchUnknown):
            await world.batches.get("acme", batch.id)
    assert world.store.kept.of("acme") == 0


async def test_a_batch_that_is_being_removed_is_not_run_again(world: BatchWorld) -> None:
    world.executor.program = odd_fails
    batch = await world.send(numbered(10))
    expires_us = (await world.over(batch)).batch.expires_us
    assert expires_us is not None
    # The first of many rounds.
    await world.store.expire(expires_us, 5)
    world.batches.now_us = lambda: expires_us
    with pytest.raises(BatchUnknown, match="is no longer kept; submit its inputs again"):
        await world.batches.retry("acme", batch.id)
    assert await world.store.batches.open_batches() == []
    for _ in range(3):
        await world.blobs.delete(await world.store.expire(expires_us, 5))
    assert await world.store.batches.get(batch.id) is None
    assert world.store.kept.of("acme") == 0


async def test_a_refused_batch_leaves_nothing(world: BatchWorld) -> None:
    with pytest.raises(BadRequest, match="has 50000 bytes; an input has at most 49999"):
        await world.send(tar([("x", bytes(50_000))]), Format.TAR, input_bytes=49_999)
    assert blob_files(world) == []
    assert await world.store.batches.open_batches() == []


async def test_a_submission_that_the_set_breaks_off_keeps_the_spool_that_its_row_names(
    world: BatchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, never = asyncio.Event(), asyncio.Event()
    add = world.store.batches.add

    async def slow(batch: Batch, idempotency: Idempotency | None, most: int) -> Batch:
        await add(batch, idempotency, most)
        stored.set()
        await never.wait()
        return batch

    monkeypatch.setattr(world.store.batches, "add", slow)
    files = {name: name.encode() * 30_000 for name in "abc"}
    sending = asyncio.create_task(world.send(tar(list(files.items())), Format.TAR))
    await until(stored.is_set)
    await world.batches._writes.stop(0)
    with pytest.raises(asyncio.CancelledError):
        await sending
    await world.restart()
    (batch,) = await world.store.batches.open_batches()
    world.executor.program = cat
    for run in world.executor.running:
        cat(run)
    await world.succeeded(batch)
    assert await world.outputs(batch) == files


async def test_a_batch_whose_results_fill_the_share_says_that_it_waits_and_what_to_do(
    world: BatchWorld,
) -> None:
    await world.restart(storage=StorageLimits(account_bytes=200_000))
    world.executor.program = lambda run: run.exit(0, bytes(10_000))
    batch = await world.send(numbered(200))
    await until(lambda: world.batches._open[batch.id].waiting_for)
    said = (await world.batches.get("acme", batch.id)).waiting_for or ""
    assert said.startswith("this account keeps 0 MiB of inputs, results and output files")
    assert said.endswith(
        "so if these fill the share, fetch them, cancel the batch, and submit the other inputs later"
    )
    await until(lambda: not world.batches._open[batch.id].live)
    progress = await world.batches.cancel("acme", batch.id)
    succeeded = progress.counts.states[State.SUCCEEDED]
    assert 0 < succeeded < 200
    assert len(await world.outputs(batch)) == succeeded


async def test_a_damaged_spool_does_not_end_the_set(world: BatchWorld) -> None:
    batch = await world.send(tar([("x", bytes(100_000))]), Format.TAR)
    await until(lambda: world.batches._open[batch.id].batch.made == 1)
    await world.batches.cancel("acme", batch.id)
    (spool,) = [path for path in blob_files(world) if path.stat().st_size > 100_000]
    spool.unlink()
    await world.batches.retry("acme", batch.id)
    await until(lambda: world.batches._open[batch.id].waiting_for)
    progress = await world.batches.get("acme", batch.id)
    assert progress.waiting_for is not None
    assert "is not there" in progress.waiting_for
    await world.batches.cancel("acme", batch.id)
    assert (await world.over(batch)).batch.cancelled


async def test_a_store_that_refuses_for_a_while_costs_no_input(
    world: BatchWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.executor.program = cat
    fill, refusals = world.store.batches.fill, 3

    async def troubled(*args: object) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise StoreError("the disk is tired")
        await fill(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("scheduler.batches.expansion.AGAIN", [0.01] * 10)
    monkeypatch.setattr(world.store.batches, "fill", troubled)
    batch = await world.send(numbered(60))
    await world.succeeded(batch)
    assert refusals == 0
    assert len(await world.outputs(batch)) == 60


async def test_a_batch_whose_image_is_gone_after_a_restart_ends(world: BatchWorld) -> None:
    batch = await world.send(numbered(100))
    await until(lambda: len(world.executor.running) == 2)
    await world.close()
    world.make()
    world.launcher.images.known.clear()
    await world.open()
    progress = await world.over(batch)
    assert progress.batch.detail is not None
    assert "is gone" in progress.batch.detail
