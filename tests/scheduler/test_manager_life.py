"""Opening and closing, an engine that is away, and slots that start and retire: nothing hangs."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from scheduler.backoff import Backoff
from scheduler.errors import (
    Draining,
    EngineUnavailable,
    SlotLost,
    StoreError,
)
from scheduler.policy.limits import Limits
from scheduler.task import Reason, State
from tests.scheduler.conftest import Clock, NewWorld, World, left, until, until_state
from tests.scheduler.fakes import cat

LARGE = b"x" * 100_000


# -- closing


async def test_closing_returns_running_async_tasks_to_the_queue_and_the_next_run_does_them(
    world: World,
) -> None:
    task = await world.submit(b"again")
    run = await world.started()
    run.outgrow(LARGE)
    live = await world.live()
    await until(lambda: live.handed_over)
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
    monkeypatch.setattr("scheduler.opening.AGAIN", Backoff(0.01, 5.0))
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
    monkeypatch.setattr("scheduler.opening.WAIT_S", 0.01)
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
    monkeypatch.setattr("scheduler.opening.AGAIN", Backoff(0.001, 0.001))
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
    assert [(line["event"], line.get("reason")) for line in lines if line["event"].startswith("slots")] == [
        ("slots cannot start yet; trying again", "no engine"),
        ("slots can start now", None),
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


# -- slots


async def test_a_slot_that_never_says_hello_is_given_up(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock(), slot_start_timeout_s=60.0)
    world.launcher.prompt = False
    running = world.begin(queue_timeout_s=600)
    await until(lambda: world.launcher.orders)
    world.pass_time(59.9)
    assert world.launcher.stopped == []
    world.launcher.prompt = True
    world.executor.program = cat
    world.pass_time(1.0)
    task, _ = await running
    assert (task.state, task.attempts) == (State.SUCCEEDED, 1)
    await until(lambda: world.launcher.stopped == [world.launcher.orders[0].slot_id])


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
    world = await new_world(limits=Limits(keep_idle_s=300.0), clock=Clock())
    world.executor.program = cat
    await world.run()
    world.pass_time(299.9)
    assert world.facts()["slots_idle"] == 1
    world.pass_time(0.1)
    await until(lambda: world.launcher.stopped)
    facts = world.facts()
    assert [facts[f"slots_{state}"] for state in ("idle", "starting", "running")] == [0, 0, 0]
    assert (facts["tasks_known"], facts["cores_busy"]) == (0, 0)
