"""Sync tasks that wait for a slot: what they are told, and when they are refused."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.backoff import Backoff
from scheduler.errors import (
    AccountLimit,
    BadRequest,
    EngineRefused,
    ImageUnusable,
    NoRoom,
    QueueFull,
    QueueTimeout,
)
from scheduler.policy.limits import Limits
from scheduler.task import Resources, State
from tests.scheduler.conftest import Clock, NewWorld, World, until, until_state
from tests.scheduler.fakes import cat

ONE_CORE = Limits(cpu_percent=100, start_backoff_s=0.01, patience_s=0.05)


async def test_who_finds_no_slot_in_time_is_told_why(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE, clock=Clock())
    first = world.begin()
    run = await world.started()
    waiting = world.begin(queue_timeout_s=10)
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    world.pass_time(9.9)
    assert world.facts()["tasks_waiting"] == 1
    world.pass_time(0.1)
    with pytest.raises(
        QueueTimeout, match=r"queue_timeout_s \(10 s\): all slots of its kind are busy \(1\)$"
    ) as refused:
        await waiting
    assert not refused.value.executed
    run.exit()
    await first
    world.assert_nothing_left()


async def test_a_queue_time_out_names_what_keeps_slots_from_starting(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock())
    world.launcher.refuse = [EngineRefused("no space left on the engine")] * 100
    waiting = world.begin(queue_timeout_s=10)
    await until(lambda: world.launcher.stopped)
    world.pass_time(10)
    with pytest.raises(QueueTimeout, match="could not start: no space left on the engine"):
        await waiting
    world.assert_nothing_left()


async def test_an_idle_slot_gives_its_room_to_a_task_whose_slot_found_none(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock())
    warm = world.begin()
    (await world.started()).exit()
    await warm
    (idle,) = world.launcher.orders
    world.launcher.refuse = [NoRoom("no node has enough free memory")]
    waiting = world.begin(account="newcomer", resources=Resources(100, 256))
    await until(lambda: idle.slot_id in world.launcher.stopped)
    world.pass_time(1.0)
    (await world.started(2)).exit()
    await waiting
    world.assert_nothing_left()


async def test_a_queued_task_says_what_it_waits_for(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE, clock=Clock(), retry_backoff_s=30.0)
    world.launcher.prompt = False
    task = await world.submit()
    await until(lambda: world.launcher.orders)
    world.pass_time(4.2)
    assert world.manager.waiting_for(task) == "a slot of its kind has been starting for 4.2 s"
    world.executor.hello(world.launcher.orders[0].slot_id)
    (await world.started()).lose()
    task = await until_state(world, task, State.QUEUED)
    pause_s = Backoff(30.0, 30.0).spread(1, task.id)
    assert world.manager.waiting_for(task) == f"its next attempt, in {pause_s:.1f} s"
    cancelled = await world.manager.cancel("acme", task.id)
    assert world.manager.waiting_for(cancelled) is None
    world.assert_nothing_left()


async def test_a_full_queue_answers_at_once(new_world: NewWorld) -> None:
    world = await new_world(limits=Limits(cpu_percent=100, max_waiting=2, max_waiting_account=1))
    running = world.begin()
    run = await world.started()
    waiting = world.begin()
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    with pytest.raises(AccountLimit):
        await world.run()
    with pytest.raises(AccountLimit):
        world.manager.check_room(world.spec())
    other = world.begin(account="other")
    await until(lambda: world.facts()["tasks_waiting"] == 2)
    with pytest.raises(QueueFull):
        await world.run(account="third")
    world.executor.program = cat
    run.exit()
    await asyncio.gather(running, waiting, other)
    world.assert_nothing_left()


async def test_more_than_the_set_has_is_the_callers_mistake(world: World) -> None:
    with pytest.raises(BadRequest) as refused:
        await world.run(resources=Resources(cpu_percent=300))
    assert refused.value.field == "cpu"
    world.assert_nothing_left()


async def test_an_image_that_cannot_start_is_refused_to_all_who_wait(world: World) -> None:
    world.launcher.refuse = [ImageUnusable("its USER is not in its passwd")] * 2
    outcomes = await asyncio.gather(world.run(), world.run(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ImageUnusable, ImageUnusable]
    world.assert_nothing_left()
