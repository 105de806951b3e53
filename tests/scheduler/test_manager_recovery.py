"""Opening again: the set goes on with what an earlier run left."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest

from scheduler import recovery
from scheduler.backoff import Backoff
from scheduler.errors import (
    ImagePulling,
    SchedulerError,
    StoreError,
    Unavailable,
)
from scheduler.image import Image
from scheduler.store.contract import Body
from scheduler.task import Reason, State, Task
from tests.scheduler.conftest import World, left, until
from tests.scheduler.fakes import CAT, cat

LARGE = b"x" * 100_000


async def reopened(world: World, **settings: object) -> None:
    world.make(**settings)
    await world.open()


async def test_a_thousand_queued_tasks_neither_hold_up_the_start_nor_each_other(world: World) -> None:
    tasks = await left(world, 1000)
    world.make()
    world.executor.program = cat
    first_known: list[float] = []

    def first(run: object) -> None:
        first_known.append(world.facts()["tasks_known"])
        world.executor.program = cat
        cat(run)  # type: ignore[arg-type]

    world.executor.program = first
    await world.open()
    new = await world.submit(b"new")
    for task in tasks:
        assert (await world.wait(task)).state is State.SUCCEEDED
    await world.wait(new)
    # The first one ran while most were still in the store alone.
    assert first_known[0] < 1000
    assert len(world.executor.runs) == 1001
    assert len({run.work.stdin for run in world.executor.runs}) == 1001
    assert world.executor.most_at_once <= 2
    world.assert_nothing_left()


async def submitted(world: World, stdin: bytes) -> Task:
    """Submit as a client does: a disk that is behind asks it to come again."""
    for _ in range(1000):
        try:
            return await world.submit(stdin)
        except Unavailable:
            await asyncio.sleep(0.01)
    raise AssertionError("the disk never caught up")


async def test_tasks_that_come_during_recovery_are_run_once(world: World) -> None:
    await left(world, 600)
    world.make()
    world.executor.program = cat
    await world.open()
    new = [await submitted(world, b"new %d" % number) for number in range(100)]
    for task in new:
        await world.wait(task)
    await until(lambda: not world.facts()["tasks_known"] and len(world.ended.tasks) == 700)
    assert len(world.executor.runs) == 700


async def test_an_attempt_that_ran_when_the_set_was_killed_counts_as_lost(world: World) -> None:
    (task,) = await left(world, 1, State.RUNNING)
    world.make()
    world.executor.program = cat
    await world.open()
    ended = await world.wait(task)
    assert (ended.state, ended.attempts) == (State.SUCCEEDED, 2)


async def test_a_task_that_kills_the_set_each_time_fails_in_the_end(world: World) -> None:
    (task,) = await left(world, 1, State.RUNNING)
    await reopened(world, max_attempts=1)
    ended = await world.wait(task)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.PLATFORM)
    assert world.executor.runs == []


async def test_tasks_of_an_image_that_is_gone_fail_and_others_run(world: World) -> None:
    gone = await left(world, 40, image="old:1", image_digest="sha256:" + "0" * 64)
    (kept,) = await left(world, 1)
    world.make()
    world.executor.program = cat
    await world.open()
    assert (await world.wait(kept)).state is State.SUCCEEDED
    for task in gone:
        ended = await world.wait(task)
        assert (ended.state, ended.reason) == (State.FAILED, Reason.PLATFORM)
        assert ended.detail is not None
        assert "old:1" in ended.detail
        assert "is gone" in ended.detail
    world.assert_nothing_left()


async def test_an_image_of_a_registry_is_found_by_repository_and_digest(world: World) -> None:
    digest = "sha256:" + "d" * 64
    (task,) = await left(world, 1, image="registry.example/ocr:1", image_digest=digest)
    world.make()
    reference = f"registry.example/ocr@{digest}"
    world.launcher.images.known[reference] = Image(reference, digest, "sha256:" + "e" * 64, ("/ocr",))
    world.executor.program = cat
    await world.open()
    assert (await world.wait(task)).state is State.SUCCEEDED


async def test_a_task_whose_image_is_being_pulled_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "AGAIN", Backoff(0.01, 15.0))
    slow = await left(world, 3, image="slow:1", image_digest="sha256:" + "1" * 64)
    (prompt,) = await left(world, 1)
    world.make()
    pulling: dict[str, SchedulerError] = {slow[0].spec.image_digest: ImagePulling()}
    resolve = world.launcher.images.resolve

    async def pull(reference: str) -> Image:
        if reference in pulling:
            raise pulling[reference]
        return await resolve(reference)

    monkeypatch.setattr(world.launcher.images, "resolve", pull)
    world.executor.program = cat
    await world.open()
    assert (await world.wait(prompt)).state is State.SUCCEEDED
    # One is cancelled while it waits for its image.
    cancelling = asyncio.create_task(world.manager.cancel("acme", slow[0].id))
    await until(lambda: slow[0].id in world.manager._recovery._cancelled)
    pulling.clear()
    world.launcher.images.known[slow[0].spec.image_digest] = CAT
    assert (await cancelling).state is State.CANCELLED
    for task in slow[1:]:
        assert (await world.wait(task)).state is State.SUCCEEDED
    assert len(world.executor.runs) == 3


async def test_unfinished_tasks_that_cannot_be_read_are_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "AGAIN", Backoff(0.01, 15.0))
    tasks = await left(world, 20)
    world.make()
    unfinished = world.store.unfinished
    reads = 0

    async def broken() -> AsyncIterator[Task]:
        nonlocal reads
        reads += 1
        async for task in unfinished():
            if reads == 1 and task.id == tasks[10].id:
                raise StoreError("the disk does not answer")
            yield task

    monkeypatch.setattr(world.store, "unfinished", broken)
    world.executor.program = cat
    await world.open()
    for task in tasks:
        assert (await world.wait(task)).state is State.SUCCEEDED
    assert (reads, len(world.executor.runs)) == (2, 20)


# -- orphans


async def test_orphaned_blobs_are_swept_at_the_start_and_no_others(world: World) -> None:
    async def a_blob() -> str:
        writer = world.blobs.body()
        await writer.write(LARGE)
        blob = (await writer.finish()).blob
        assert blob is not None
        return blob

    orphan, kept = await a_blob(), await a_blob()
    old = time.time() - 10
    for name in (orphan, kept):
        os.utime(world.blobs.path(name), (old, old))
    task = await world.submit(Body(len(LARGE), blob=kept))
    (await world.started()).obeys = False
    path, kept_path = world.blobs.path(orphan), world.blobs.path(kept)
    await world.restart()
    await until(lambda: not path.exists())
    assert kept_path.exists()
    fresh = await a_blob()
    world.manager._upkeep.sweep(None)
    await until(lambda: not world.manager._upkeep._sweeping)
    assert world.blobs.path(fresh).exists()
    (await world.started()).exit(0)
    assert (await world.wait(task)).state is State.SUCCEEDED
