"""Dead letters: tasks that the platform gave up, and their replay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scheduler.errors import (
    AccountLimit,
    Draining,
    ImageUnknown,
    ImageUnusable,
    NotDead,
    SchedulerError,
    TaskUnknown,
)
from scheduler.policy.limits import Limits
from scheduler.store.contract import Body, Idempotency, TaskFilter
from scheduler.task import Reason, State, Task
from tests.scheduler.conftest import NewWorld, World, blob_files, left, until
from tests.scheduler.fakes import FakeRun, cat

LARGE = b"x" * 100_000


def lose(run: FakeRun) -> None:
    run.lose("its guest is gone")


async def given_up(world: World, stdin: bytes | Body = b"hello", **facts: Any) -> Task:
    """A task whose every attempt the platform lost."""
    before, world.executor.program = world.executor.program, lose
    ended = await world.wait(await world.submit(stdin, **facts))
    world.executor.program = before
    assert (ended.state, ended.reason, ended.dead) == (State.FAILED, Reason.PLATFORM, True)
    return ended


async def dead(world: World) -> list[str]:
    return [task.id for task in await world.manager.page(TaskFilter("acme", dead=True))]


async def test_a_task_that_the_platform_gave_up_is_run_once_more_as_a_new_one(world: World) -> None:
    task = await given_up(world, b"precious", name="mine", args=("-n",))
    assert await dead(world) == [task.id]
    world.executor.program = cat
    replay = await world.manager.replay("acme", task.id)
    assert (replay.id != task.id, replay.replay_of) == (True, task.id)
    ended = await world.wait(replay)
    assert (ended.state, ended.spec, ended.attempts) == (State.SUCCEEDED, task.spec, 1)
    assert await world.stdout(replay) == b"precious"
    assert await dead(world) == []
    old = await world.manager.get("acme", task.id)
    assert (old.state, old.reason, old.replayed_as) == (State.FAILED, Reason.PLATFORM, replay.id)
    world.assert_nothing_left()


async def test_a_replay_asked_for_many_times_is_one_task(world: World) -> None:
    task = await given_up(world)
    replays = await asyncio.gather(*(world.manager.replay("acme", task.id) for _ in range(50)))
    assert len({replay.id for replay in replays}) == 1
    world.executor.program = cat
    (await world.started(4)).exit(0, b"once")
    await world.wait(replays[0])
    assert (await world.manager.replay("acme", task.id)).state is State.SUCCEEDED
    assert len(world.executor.runs) == 4


async def test_a_large_input_is_handed_to_the_replay(world: World) -> None:
    body = world.blobs.body()
    await body.write(LARGE)
    task = await given_up(world, await body.finish())
    assert len(blob_files(world)) == 1
    replay = await world.manager.replay("acme", task.id)
    run = await world.started(4)
    assert run.stdin is not None
    stdin = run.stdin
    await until(lambda: len(stdin.data) == len(LARGE))
    run.exit(0, b"done")
    assert (await world.wait(replay)).stdin_bytes == len(LARGE)
    world.manager._upkeep.expire(1)
    await until(lambda: not blob_files(world))


async def test_a_replay_survives_a_killed_set(world: World) -> None:
    task = await given_up(world)
    world.launcher.prompt = False
    replay = await world.manager.replay("acme", task.id)
    await world.restart()
    world.executor.program = cat
    assert (await world.wait(replay)).state is State.SUCCEEDED
    assert await world.stdout(replay) == b"hello"


async def test_a_replay_may_be_given_up_and_replayed_itself(world: World) -> None:
    first = await given_up(world)
    world.executor.program = lose
    second = await world.wait(await world.manager.replay("acme", first.id))
    assert (second.dead, second.replay_of) == (True, first.id)
    world.executor.program = cat
    third = await world.manager.replay("acme", second.id)
    assert (await world.wait(third)).state is State.SUCCEEDED
    # Who asks for the first one again is told of what came of it.
    assert (await world.manager.replay("acme", first.id)).replayed_as == third.id


async def test_what_the_platform_did_not_give_up_is_not_replayed(world: World) -> None:
    world.executor.program = lambda run: run.exit(1)
    failed = await world.wait(await world.submit())
    with pytest.raises(NotDead, match="is failed and not a dead letter"):
        await world.manager.replay("acme", failed.id)
    world.executor.program = None
    running = await world.submit()
    await world.started(2)
    with pytest.raises(NotDead, match="is running"):
        await world.manager.replay("acme", running.id)
    with pytest.raises(TaskUnknown):
        await world.manager.replay("other", failed.id)


@pytest.mark.parametrize("refusal", ["image gone", "no more may wait", "draining"])
async def test_a_replay_that_is_refused_leaves_the_dead_letter(new_world: NewWorld, refusal: str) -> None:
    world = await new_world(limits=Limits(max_waiting_account=1, start_backoff_s=0.01))
    task = await given_up(world)
    kind: type[SchedulerError] = ImageUnknown
    if refusal == "image gone":
        world.launcher.images.known.clear()
    elif refusal == "no more may wait":
        world.launcher.prompt = False
        for _ in range(3):
            await world.submit(account="acme", cpu_features=())
            if world.facts()["tasks_waiting"]:
                break
        kind = AccountLimit
    else:
        await world.close()
        await world.store.open()
        kind = Draining
    with pytest.raises(kind):
        await world.manager.replay("acme", task.id)
    assert await world.store.stdin(task.id) == Body(5, b"hello")
    if refusal == "draining":
        await world.store.close()


async def test_a_task_whose_image_went_while_the_set_was_down_is_a_dead_letter(world: World) -> None:
    (task,) = await left(world, 1, image="old:1", image_digest="sha256:" + "0" * 64)
    world.make()
    await world.open()
    await world.wait(task)
    assert await dead(world) == [task.id]


async def test_only_the_platforms_fault_makes_dead_letters(world: World) -> None:
    world.launcher.refuse = [ImageUnusable("its USER is unknown")]
    ended = [await world.wait(await world.submit())]
    world.executor.program = lambda run: run.exit(7)
    ended.append(await world.wait(await world.submit()))
    assert [(task.state, task.dead) for task in ended] == [(State.FAILED, False)] * 2
    assert await dead(world) == []


async def test_the_operator_may_keep_dead_letters_longer(new_world: NewWorld) -> None:
    world = await new_world(async_keep_s=100, dead_keep_s=5000)
    task = await given_up(world)
    world.executor.program = cat
    other = await world.wait(await world.submit())
    for ended, keep_s in ((task, 5000), (other, 100)):
        assert ended.expires_us is not None
        assert ended.ended_us is not None
        assert ended.expires_us - ended.ended_us == keep_s * 1_000_000


async def test_a_key_answers_with_its_task_also_when_that_was_given_up(world: World) -> None:
    world.executor.program = lose
    key = Idempotency("k", b"one")
    task = await world.wait(await world.submit(idempotency=key))
    assert (await world.submit(idempotency=key)).id == task.id


async def test_of_a_lost_attempt_nothing_is_billed(world: World) -> None:
    task = await world.submit()
    first = await world.started()
    first.cpu_us = 5_000_000
    first.lose()
    (await world.started(2)).exit(0, cpu_us=300)
    ended = await world.wait(task)
    assert (ended.attempts, ended.lost_attempts - 1, ended.cpu_us, ended.duration_us) == (2, 1, 300, 1000)
