"""Followers of running tasks, as conversations: the program writes, the follower reads, an attempt is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scheduler.errors import AccountLimit, Draining, QueueFull, StoreError, TaskUnknown
from scheduler.following import Cause, FollowBroken, Follower, Which
from scheduler.policy.limits import Limits
from scheduler.task import Reason, State, Task
from tests.scheduler.conftest import NewWorld, World, until
from tests.scheduler.fakes import FakeRun

LARGE = bytes(range(256)) * 2048
"""More than is gathered before a blob is written."""


async def follow(world: World, task_id: str, which: Which = Which.STDOUT, **how: Any) -> Follower:
    follower = await world.manager.followers.follow("acme", task_id, which, **how)
    assert follower is not None
    return follower


async def read(follower: Follower, size: int) -> bytes:
    """The next bytes, that many at least."""
    data = b""
    while len(data) < size:
        data += await anext(follower)
    return data


async def rest(follower: Follower) -> bytes:
    return b"".join([piece async for piece in follower])


async def broken(follower: Follower) -> tuple[bytes, Cause]:
    """What still comes before the answer is broken off, and why it is."""
    data = b""
    try:
        async for piece in follower:
            data += piece
    except FollowBroken as error:
        return data, error.cause
    raise AssertionError(f"it ended well, after {data!r}")


async def shown(run: FakeRun, stdout: bytes = b"", stderr: bytes = b"") -> None:
    """The guest hands over what the program wrote, as it was asked to."""
    await until(lambda: run.shown)
    run.outgrow(stdout, stderr)


async def test_an_async_task_is_followed_from_memory_through_a_file_into_its_result(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    await world.live()
    out, err = await follow(world, task.id), await follow(world, task.id, Which.STDERR)
    assert (out.attempt, out.first_byte) == (1, 0)
    await shown(run, b"first ", b"careful")
    assert (await read(out, 6), await read(err, 7)) == (b"first ", b"careful")
    for _ in range(3):
        run.stdout.feed(LARGE)
        assert await read(out, len(LARGE)) == LARGE
    late = await follow(world, task.id)
    assert await read(late, 6 + 3 * len(LARGE)) == b"first " + LARGE * 3, (
        "one that comes later gets all of it"
    )
    run.exit(0, b"last")
    assert (await rest(out), await rest(err), await rest(late)) == (b"last", b"", b"last")
    assert await world.stdout(task) == b"first " + LARGE * 3 + b"last"
    for follower in (out, err, late):
        follower.close()
    assert len(world.manager.followers) == 0
    assert world.manager._roster._watchers == {}


async def test_a_follower_reads_at_its_own_pace_even_after_the_end(world: World) -> None:
    """The task does not wait for it, and it still gets every byte, from the result."""
    task = await world.submit()
    run = await world.started()
    await world.live()
    out = await follow(world, task.id)
    await shown(run, b"first ")
    run.stdout.feed(LARGE * 4)
    run.exit()
    assert (await world.wait(task)).state is State.SUCCEEDED
    assert await rest(out) == b"first " + LARGE * 4


async def test_a_program_that_ends_before_its_output_is_handed_over(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    await world.live()
    out, err = await follow(world, task.id), await follow(world, task.id, Which.STDERR)
    run.exit(0, b"all", b"of it")
    assert (await rest(out), await rest(err)) == (b"all", b"of it")


async def test_a_task_that_fails_breaks_its_followers_off_behind_its_last_byte(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    await world.live()
    out = await follow(world, task.id)
    run.exit(3, b"half")
    assert await broken(out) == (b"half", Cause.TASK_FAILED)
    assert world.manager.followers.broken_off == {Cause.TASK_FAILED: 1}


async def test_a_new_attempt_begins_a_new_stream(world: World) -> None:
    task = await world.submit()
    run = await world.started()
    await world.live()
    out = await follow(world, task.id)
    await shown(run, b"of the first")
    assert await read(out, 12) == b"of the first"
    run.lose()
    assert await broken(out) == (b"", Cause.ATTEMPT_LOST)
    again = await follow(world, task.id)
    assert again.attempt == 2
    reading = asyncio.create_task(rest(again))
    run = await world.started(2)
    await shown(run, b"of the second")
    run.exit()
    assert await reading == b"of the second"


async def test_so_does_one_that_the_task_asked_for(new_world: NewWorld) -> None:
    world = await new_world(own_backoff_s=0.01)
    task = await world.submit(retries=1)
    run = await world.started()
    await world.live()
    out = await follow(world, task.id)
    await shown(run, b"no")
    run.exit(1)
    assert await broken(out) == (b"no", Cause.ATTEMPT_LOST)
    again = await follow(world, task.id)
    (await world.started(2)).exit(0, b"yes")
    assert (again.attempt, await rest(again)) == (2, b"yes")


async def test_more_output_than_is_kept_never_ends_as_if_it_were_all(new_world: NewWorld) -> None:
    world = await new_world(stderr_max_bytes=100_000)
    task = await world.submit()
    run = await world.started()
    await world.live()
    err = await follow(world, task.id, Which.STDERR)
    await shown(run, b"", b"x" * 60_000)
    run.exit(0, b"", b"y" * 60_000)
    assert await broken(err) == (b"x" * 60_000 + b"y" * 40_000, Cause.NOT_KEPT)
    assert (await world.wait(task)).state is State.SUCCEEDED


async def test_a_waiting_task_is_followed_once_it_begins(world: World) -> None:
    world.launcher.prompt = False
    task = await world.submit()
    out = await follow(world, task.id)
    assert (out.attempt, out.begun) == (1, False)
    reading = asyncio.create_task(rest(out))
    await until(lambda: world.launcher.orders)
    world.executor.hello(world.launcher.orders[0].slot_id)
    (await world.started()).exit(0, b"here")
    assert await reading == b"here"
    assert world.manager._roster._beginnings == {}


async def test_a_waiting_task_that_never_begins(world: World) -> None:
    world.launcher.prompt = False
    task = await world.submit()
    out = await follow(world, task.id)
    await world.manager.cancel("acme", task.id)
    assert await broken(out) == (b"", Cause.TASK_FAILED)


async def test_what_is_there_now(world: World) -> None:
    """It waits for what the guest holds, and for nothing that comes later."""
    task = await world.submit()
    run = await world.started()
    await world.live()
    out = await follow(world, task.id, so_far=True)
    reading = asyncio.create_task(rest(out))
    await shown(run, b"first", b"careful")
    assert await reading == b"first"
    assert await rest(await follow(world, task.id, Which.STDERR, so_far=True)) == b"careful"
    run.stdout.feed(b" second")
    live = await world.live()
    await until(lambda: live.outputs.stdout.written.size_bytes == 12)
    assert await rest(await follow(world, task.id, so_far=True)) == b"first second"
    run.exit()
    await world.wait(task)
    assert await world.manager.followers.follow("acme", task.id, Which.STDOUT, so_far=True) is None


async def test_an_unknown_task_and_another_accounts(world: World) -> None:
    task = await world.submit()
    with pytest.raises(TaskUnknown):
        await world.manager.followers.follow("other", task.id, Which.STDOUT)
    with pytest.raises(TaskUnknown):
        await world.manager.followers.follow("acme", "t-none", Which.STDOUT)
    assert len(world.manager.followers) == 0
    assert world.manager._roster._watchers == {}


# -- sync tasks


async def sync_task(world: World) -> Task:
    (entry,) = world.manager._roster.entries.values()
    return entry.task


async def test_a_sync_task_is_followed_beside_its_caller(world: World) -> None:
    """Also one whose small output its caller gets in one piece at the end, with all its facts."""
    calling = world.begin()
    run = await world.started()
    await world.live()
    task = await sync_task(world)
    out, err = await follow(world, task.id), await follow(world, task.id, Which.STDERR)
    await shown(run, b"first ", b"careful")
    assert (await read(out, 6), await read(err, 7)) == (b"first ", b"careful")
    run.stdout.feed(b"second")
    assert await read(out, 6) == b"second"
    run.exit(0, b"!", b" now")
    ended, output = await calling
    assert (ended.state, output) == (State.SUCCEEDED, b"first second!")
    assert (await rest(out), await rest(err)) == (b"!", b" now")


async def test_a_sync_task_that_ends_in_one_message(world: World) -> None:
    calling = world.begin()
    run = await world.started()
    await world.live()
    task = await sync_task(world)
    out, err = await follow(world, task.id), await follow(world, task.id, Which.STDERR)
    run.exit(0, b"all", b"of it")
    assert (await rest(out), await rest(err)) == (b"all", b"of it")
    assert (await calling)[1] == b"all"


async def test_one_that_comes_between_the_end_and_its_record(world: World) -> None:
    """Nothing tells it of the end any more: it must see that by itself."""
    world.store.trouble = StoreError("the disk is slow")
    task = await world.submit()
    run = await world.started()
    run.exit(0, b"all", b"of it")
    await until(lambda: world.store.refusals)
    out = await follow(world, task.id)
    reading = asyncio.create_task(rest(out))
    world.store.trouble = None
    assert await reading == b"all"


async def test_one_that_comes_later_gets_the_last_64_kib(world: World) -> None:
    calling = world.begin()
    run = await world.started()
    live = await world.live()
    run.outgrow(b"old " * 20_000)
    for _ in range(30_000):
        run.stdout.feed(b"new ")
    await until(lambda: live.task.stdout_bytes > 65_536 and live.outputs.stdout.written.size_bytes == 200_000)
    out = await follow(world, live.task.id)
    assert out.first_byte == 200_000 - 65_536
    run.exit(0, b"last")
    assert await rest(out) == (b"new " * 30_000)[-65_536:] + b"last"
    assert (await calling)[1] == b"old " * 20_000 + b"new " * 30_000 + b"last"


async def test_one_that_falls_behind_is_broken_off_and_slows_nobody(new_world: NewWorld) -> None:
    world = await new_world(follow_buffer_bytes=100_000)
    calling = world.begin()
    run = await world.started()
    live = await world.live()
    out = await follow(world, live.task.id)
    await shown(run, b"first ")
    assert await read(out, 6) == b"first "
    for _ in range(5):
        before = live.outputs.stdout.written.size_bytes
        run.stdout.feed(b"x" * 100_000)
        await until(lambda before=before: live.outputs.stdout.written.size_bytes > before)  # type: ignore[misc]
    assert await broken(out) == (b"", Cause.FELL_BEHIND)
    out.close()
    run.exit()
    assert (await calling)[0].state is State.SUCCEEDED


async def test_a_caller_who_leaves_ends_the_followers_of_its_task(world: World) -> None:
    calling = world.begin()
    run = await world.started()
    live = await world.live()
    out = await follow(world, live.task.id)
    await shown(run, b"first")
    assert await read(out, 5) == b"first"
    calling.cancel()
    assert await broken(out) == (b"", Cause.ATTEMPT_LOST)
    await world.settled()


async def test_a_sync_attempt_that_is_lost_is_told_from_the_next(world: World) -> None:
    calling = world.begin()
    run = await world.started()
    live = await world.live()
    task_id = live.task.id
    out = await follow(world, task_id)
    run.lose()
    assert await broken(out) == (b"", Cause.ATTEMPT_LOST)
    run = await world.started(2)
    await until(lambda: world.manager._roster.entries[task_id].live is not None)
    again = await follow(world, task_id)
    assert again.attempt == 2
    run.exit(0, b"well")
    assert await rest(again) == b"well"
    assert (await calling)[1] == b"well"


async def test_a_small_task_that_nobody_follows_has_no_live_output(world: World) -> None:
    """The hot path makes nothing for followers."""
    calling = world.begin()
    run = await world.started()
    live = await world.live()
    run.exit(0, b"small")
    assert (await calling)[1] == b"small"
    assert live._outputs is None
    assert not run.shown


# -- bounds and ends


async def test_bounds(new_world: NewWorld) -> None:
    world = await new_world(max_followers=2, max_followers_account=1)
    mine, other = await world.submit(), await world.submit(account="other")
    first = await follow(world, mine.id)
    with pytest.raises(AccountLimit, match="follows 1 output"):
        await world.manager.followers.follow("acme", mine.id, Which.STDERR)
    second = await world.manager.followers.follow("other", other.id, Which.STDOUT)
    assert second is not None
    with pytest.raises(QueueFull):
        await world.manager.followers.follow("third", mine.id, Which.STDERR)
    first.close()
    first.close()
    assert world.facts()["followers"] == 1
    await follow(world, mine.id)


async def test_a_drain_ends_those_that_wait_and_lets_the_others_go_on(new_world: NewWorld) -> None:
    world = await new_world(limits=Limits(cpu_percent=100))
    runs = await world.submit()
    run = await world.started()
    await world.live()
    out = await follow(world, runs.id)
    waits = await world.submit()
    held = await follow(world, waits.id)
    world.manager.drain()
    assert await broken(held) == (b"", Cause.SET_STOPS)
    with pytest.raises(Draining):
        await world.manager.followers.follow("acme", waits.id, Which.STDOUT)
    run.exit(0, b"all")
    assert await rest(out) == b"all"
    world.manager.resume()
    held = await follow(world, waits.id)
    (await world.started(2)).exit(0, b"later")
    assert await rest(held) == b"later"


async def test_a_set_that_stops_ends_all(world: World) -> None:
    task = await world.submit()
    await world.started()
    await world.live()
    out = await follow(world, task.id)
    reading = asyncio.create_task(broken(out))
    world.manager.followers.stop()
    assert await reading == (b"", Cause.SET_STOPS)
    with pytest.raises(Draining):
        await world.manager.followers.follow("acme", task.id, Which.STDOUT)
    await world.manager.cancel("acme", task.id)
    assert (await world.wait(task)).reason is Reason.CANCELLED
