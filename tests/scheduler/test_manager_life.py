"""Opening, closing and opening again: what an earlier run left is gone on with, and nothing hangs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from scheduler import recovery
from scheduler.backoff import Backoff
from scheduler.errors import (
    Draining,
    EngineUnavailable,
    ImagePulling,
    SchedulerError,
    SlotLost,
    StoreError,
    Unavailable,
)
from scheduler.image import Image
from scheduler.policy.limits import Limits
from scheduler.store.contract import Body
from scheduler.task import Kind, Reason, State, Task
from tests.scheduler.conftest import NewWorld, World, until, until_state
from tests.scheduler.fakes import CAT, cat

LARGE = b"x" * 100_000


async def left(world: World, count: int, state: State = State.QUEUED, **facts: object) -> list[Task]:
    """Tasks as a killed set leaves them; the world is closed."""
    await world.close()
    await world.store.open()
    tasks = []
    for number in range(count):
        spec = world.spec(Kind.ASYNC, **facts)
        task = Task(world.manager.ids.new(), spec, time.time_ns() // 1000, stdin_bytes=5)
        data = b"%05d" % number
        await world.store.add(task, Body(5, data), None)
        if state is State.RUNNING:
            task.move(State.RUNNING)
            task.attempts = 1
            world.store.update_later(task)
        tasks.append(task)
    await world.store.close()
    return tasks


async def reopened(world: World, **settings: object) -> None:
    world.make(**settings)
    await world.open()


# -- closing


async def test_closing_returns_running_async_tasks_to_the_queue_and_the_next_run_does_them(
    world: World,
) -> None:
    task = await world.submit(b"again")
    run = await world.started()
    run.outgrow(LARGE)
    await asyncio.sleep(0.01)
    await world.close()
    await world.store.open()
    kept = await world.store.get(task.id)
    await world.store.close()
    assert kept is not None
    # The attempt does not count: a set may be restarted often during a long task.
    assert (kept.state, kept.attempts, kept.started_us) == (State.QUEUED, 0, None)
    world.make()
    world.executor.program = cat
    await world.open()
    ended = await world.wait(task)
    assert (ended.state, ended.attempts) == (State.SUCCEEDED, 1)
    assert await world.stdout(task) == b"again"


async def test_closing_ends_sync_tasks(new_world: NewWorld) -> None:
    world = await new_world(limits=Limits(cpu_percent=100))
    running = world.begin()
    await world.started()
    waiting = world.begin()
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    await world.close()
    outcomes = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [SlotLost, Draining]
    assert world.ended.tasks[0].reason is Reason.PLATFORM
    assert world.executor.closed
    assert world.launcher.closed
    for refused in (world.manager.check(), world.submit(), world.run()):
        with pytest.raises(Draining):
            await refused


async def test_closing_waits_for_outcomes_that_are_being_stored(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    run.exit(0, b"just before")
    await world.close()
    await world.store.open()
    kept = await world.store.get(task.id)
    await world.store.close()
    assert kept is not None
    assert kept.state is State.SUCCEEDED


async def test_closing_ends_also_when_an_outcome_cannot_be_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.manager.CLOSE_GRACE_S", 0.05)
    task = await world.submit(b"once more")
    run = await world.started()
    await asyncio.sleep(0.01)
    world.store.trouble = StoreError("the disk does not answer")
    run.exit(0)
    await until(lambda: world.store.refusals)
    await world.close()
    # Its row still says that it runs: the next start counts that as a lost attempt.
    world.make()
    world.executor.program = cat
    await world.open()
    ended = await world.wait(task)
    assert (ended.state, ended.attempts) == (State.SUCCEEDED, 2)


async def test_closing_closes_the_blobs(world: World) -> None:
    await world.close()
    with pytest.raises(RuntimeError):
        await world.blobs.delete([])


async def test_a_manager_that_cannot_open_leaves_nothing_open(new_world: NewWorld) -> None:
    world = await new_world()
    twin = World(world.folder)
    with pytest.raises(StoreError):
        await twin.open()
    world.executor.program = cat
    await world.run()


# -- an engine that is away


async def test_a_set_opens_without_its_engine_and_is_ready_once_it_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.manager.ENGINE_AGAIN", Backoff(0.01, 5.0))
    (task,) = await left(world, 1)
    world.make()
    world.launcher.away = EngineUnavailable("no engine")
    world.executor.program = cat
    await world.open()
    with pytest.raises(EngineUnavailable):
        await world.manager.check()
    assert (await world.manager.get("acme", task.id)).state is State.QUEUED
    world.launcher.away = None
    assert (await world.wait(task)).state is State.SUCCEEDED
    await world.manager.check()


async def test_an_engine_that_hangs_keeps_no_set_from_opening(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.manager.ENGINE_WAIT_S", 0.01)
    (task,) = await left(world, 1)
    world.make()
    answers = asyncio.Event()
    monkeypatch.setattr(world.launcher, "open", answers.wait)
    world.executor.program = cat
    await world.open()
    assert (await world.manager.get("acme", task.id)).state is State.QUEUED
    answers.set()
    assert (await world.wait(task)).state is State.SUCCEEDED


async def test_an_engine_that_stays_away_is_logged_once_and_its_return_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.manager.ENGINE_AGAIN", Backoff(0.001, 0.001))
    (task,) = await left(world, 1)
    world.make()
    tries = 0

    async def away() -> None:
        nonlocal tries
        tries += 1
        if tries < 50:
            raise EngineUnavailable("no engine")

    monkeypatch.setattr(world.launcher, "open", away)
    world.executor.program = cat
    with capture_logs() as lines:
        await world.open()
        await world.wait(task)
    assert [line["event"] for line in lines if "engine" in line["event"]] == [
        "the container engine does not answer; trying again",
        "the container engine answers now",
    ]


async def test_what_is_not_the_engines_fault_ends_the_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.close()
    world.make()

    async def unreadable() -> None:
        raise PermissionError("the seccomp profile")

    monkeypatch.setattr(world.launcher, "open", unreadable)
    with pytest.raises(PermissionError):
        await world.open()
    assert world.launcher.closed


# -- recovery


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
    began = time.monotonic()
    await world.open()
    opened_s = time.monotonic() - began
    new = await world.submit(b"new")
    for task in tasks:
        assert (await world.wait(task)).state is State.SUCCEEDED
    await world.wait(new)
    # The first one ran while most were still in the store alone.
    assert first_known[0] < 1000, opened_s
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
    await asyncio.sleep(0.02)
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
    await asyncio.sleep(0.05)
    assert world.blobs.path(fresh).exists()
    (await world.started()).exit(0)
    assert (await world.wait(task)).state is State.SUCCEEDED


async def test_a_slot_that_never_says_hello_is_given_up(new_world: NewWorld) -> None:
    world = await new_world(slot_start_timeout_s=0.05)
    world.launcher.prompt = False
    running = world.begin()
    await until(lambda: world.launcher.orders)
    await until(lambda: world.launcher.stopped)
    world.launcher.prompt = True
    world.executor.program = cat
    task, _ = await running
    assert (task.state, task.attempts) == (State.SUCCEEDED, 1)
    assert world.launcher.stopped[0] == world.launcher.orders[0].slot_id


async def test_a_slot_that_dies_while_it_starts_is_replaced_at_once(new_world: NewWorld) -> None:
    world = await new_world(slot_start_timeout_s=30.0)
    world.launcher.prompt = False
    task = await world.submit()
    await until(lambda: world.launcher.orders)
    world.launcher.prompt = True
    world.manager.slot_lost(world.launcher.orders[0].slot_id, "its container ended with exit code 1")
    (await world.started()).exit(0)
    assert (await until_state(world, task, State.SUCCEEDED)).attempts == 1


async def test_an_idle_slot_retires(new_world: NewWorld) -> None:
    world = await new_world(limits=Limits(keep_idle_s=0.02))
    world.executor.program = cat
    await world.run()
    await until(lambda: world.launcher.stopped)
    facts = world.facts()
    assert [facts[f"slots_{state}"] for state in ("idle", "starting", "running")] == [0, 0, 0]
    assert (facts["tasks_known"], facts["cores_busy"]) == (0, 0)
