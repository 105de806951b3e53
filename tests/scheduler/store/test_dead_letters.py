"""Dead letters: their inputs stay for a replay, within bounds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from scheduler.errors import DiskFull, NotDead, StaleLease, StoreError, TaskUnknown
from scheduler.store.contract import Body, DeadLetterLimits, DeadLetters, Results, TaskFilter
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Reason, State, Task
from tests.scheduler.store.samples import T0_US, a_task

BODY = Body(3, b"abc")
BLOB = "0123456789abcdef0123456789abcdef"
NONE = DeadLetters(0, 0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(
        tmp_path / "tasks.db", min_free_mib=0, dead_letter_limits=DeadLetterLimits(3, 100_000)
    )
    await store.open()
    yield store
    await store.close()


async def given_up(store: SqliteStore, body: Body = BODY, account: str = "acme", **facts: object) -> Task:
    """A task that the platform gave up."""
    task = a_task(account=account, stdin_bytes=body.size_bytes, **facts)  # type: ignore[arg-type]
    await store.add(task, body, None)
    await die(store, task)
    return task


async def die(store: SqliteStore, task: Task) -> None:
    task.move(State.FAILED)
    task.reason, task.expires_us, task.dead = Reason.PLATFORM, T0_US + 5, True
    await store.finish(task, Results())


def replay_of(task: Task) -> Task:
    return a_task(account=task.spec.account, stdin_bytes=task.stdin_bytes, replay_of=task.id)


async def listed(store: SqliteStore, account: str = "acme", **wanted: object) -> list[str]:
    return [task.id for task in await store.page(TaskFilter(account, **wanted))]  # type: ignore[arg-type]


class TestKept:
    async def test_it_is_a_failed_task_with_its_input(self, store: SqliteStore) -> None:
        task = await given_up(store, name="mine")
        assert task.dead
        assert await store.get(task.id) == task
        assert await store.stdin(task.id) == BODY
        assert await store.dead_letters() == DeadLetters(1, 3)
        assert [task async for task in store.unfinished()] == []

    async def test_it_is_listed_among_the_dead_the_failed_and_all(self, store: SqliteStore) -> None:
        failed = a_task(State.FAILED, reason=Reason.EXIT)
        await store.finish(failed, Results())
        dead = await given_up(store, name="mine")
        other = await given_up(store, image="ocr:1", account="other")
        assert await listed(store, dead=True) == [dead.id]
        assert await listed(store, dead=True, name="mine") == [dead.id]
        assert await listed(store, dead=True, image="ocr:1") == []
        assert await listed(store, "other", dead=True, image="ocr:1") == [other.id]
        assert await listed(store, state=State.FAILED) == [dead.id, failed.id]
        assert await listed(store) == [dead.id, failed.id]
        assert await listed(store, state=State.SUCCEEDED) == []

    async def test_to_write_it_again_changes_nothing(self, store: SqliteStore) -> None:
        """As is done where its writer could not tell if it was written."""
        task = await given_up(store)
        await store.finish(task, Results())
        assert task.dead
        assert await store.dead_letters() == DeadLetters(1, 3)

    async def test_one_whose_input_is_gone_is_a_failed_task(self, store: SqliteStore) -> None:
        task = a_task(State.RUNNING)
        await die(store, task)
        assert not task.dead
        assert await store.get(task.id) == task
        assert await store.dead_letters() == NONE

    async def test_an_earlier_attempt_cannot_kill_it(self, store: SqliteStore) -> None:
        task = a_task()
        await store.add(task, BODY, None)
        earlier = a_task(id=task.id)
        task.begin_attempt(T0_US, cold_start=False)
        store.update_later(task)
        with pytest.raises(StaleLease):
            await die(store, earlier)
        assert await store.dead_letters() == NONE

    async def test_it_expires_with_its_input(self, store: SqliteStore) -> None:
        task = await given_up(store, Body(70_000, blob=BLOB))
        assert await store.blobs_in_use() == {BLOB}
        assert await store.expire(T0_US + 4, 100) == []
        assert await store.expire(T0_US + 5, 100) == [BLOB]
        assert await store.get(task.id) is None
        assert await store.dead_letters() == NONE

    async def test_it_survives_a_restart(self, store: SqliteStore) -> None:
        task = await given_up(store)
        await store.close()
        await store.open()
        assert await listed(store, dead=True) == [task.id]
        assert await store.dead_letters() == DeadLetters(1, 3)


class TestBounds:
    async def test_the_oldest_go_first_and_stay_as_failed_tasks(self, store: SqliteStore) -> None:
        first = await given_up(store, Body(10, blob=BLOB))
        others = [await given_up(store) for _ in range(3)]
        assert await listed(store, dead=True) == [task.id for task in reversed(others)]
        kept = await store.get(first.id)
        assert kept is not None
        assert (kept.state, kept.reason, kept.dead) == (State.FAILED, Reason.PLATFORM, False)
        assert await store.stdin(first.id) is None
        assert await store.expire(T0_US, 100) == [BLOB]
        assert await store.dead_letters() == DeadLetters(3, 9)

    async def test_their_inputs_together_are_bounded(self, store: SqliteStore) -> None:
        small = await given_up(store)
        half, other_half = [await given_up(store, Body(50_000, blob=name * 32)) for name in "ab"]
        assert await listed(store, dead=True) == [other_half.id, half.id]
        assert not (await store.get(small.id) or half).dead
        assert await store.dead_letters() == DeadLetters(2, 100_000)

    async def test_one_that_is_too_large_takes_no_place(self, store: SqliteStore) -> None:
        small = await given_up(store)
        large = await given_up(store, Body(100_001, blob=BLOB))
        assert not large.dead
        assert await listed(store, dead=True) == [small.id]
        assert await store.expire(T0_US, 100) == [BLOB]

    async def test_an_old_task_that_dies_late_goes_itself(self, store: SqliteStore) -> None:
        old = a_task()
        await store.add(old, BODY, None)
        others = [await given_up(store) for _ in range(3)]
        await die(store, old)
        assert not old.dead
        assert await store.get(old.id) == old
        assert await listed(store, dead=True) == [task.id for task in reversed(others)]

    async def test_a_row_that_cannot_be_read_changes_nothing(self, store: SqliteStore) -> None:
        oldest = await given_up(store)
        for _ in range(2):
            await given_up(store)
        with closing(sqlite3.connect(store.path)) as other, other:
            other.execute("UPDATE tasks SET facts = x'c1' WHERE id = ?", (oldest.id,))
        late = a_task(stdin_bytes=3)
        await store.add(late, BODY, None)
        # In one transaction with a write that is right.
        good = a_task()
        died, added = await asyncio.gather(
            die(store, late), store.add(good, BODY, None), return_exceptions=True
        )
        assert isinstance(died, StoreError)
        assert added == good
        kept = await store.get(late.id)
        assert kept is not None
        assert kept.state is State.QUEUED
        assert await store.dead_letters() == DeadLetters(3, 9)

    async def test_one_account_takes_no_place_of_another(self, store: SqliteStore) -> None:
        theirs = await given_up(store, account="other")
        for _ in range(5):
            await given_up(store)
        assert await listed(store, "other", dead=True) == [theirs.id]
        assert await store.dead_letters() == DeadLetters(4, 12)

    async def test_none_are_kept_where_their_number_is_0(self, tmp_path: Path) -> None:
        store = SqliteStore(tmp_path / "none.db", min_free_mib=0, dead_letter_limits=DeadLetterLimits(0))
        await store.open()
        assert not (await given_up(store)).dead
        await store.close()


class TestReplay:
    async def test_is_a_new_task_with_the_input(self, store: SqliteStore) -> None:
        dead = await given_up(store, Body(70_000, blob=BLOB))
        new = replay_of(dead)
        assert await store.replay(dead.id, new) == new
        assert await store.stdin(new.id) == Body(70_000, blob=BLOB)
        assert await store.stdin(dead.id) is None
        assert [task.id async for task in store.unfinished()] == [new.id]
        assert await store.blobs_in_use() == {BLOB}
        old = await store.get(dead.id)
        assert old is not None
        assert (old.state, old.dead, old.replayed_as) == (State.FAILED, False, new.id)
        assert await listed(store, dead=True) == []
        assert await listed(store, state=State.FAILED) == [dead.id]
        assert await store.dead_letters() == NONE

    async def test_of_the_same_again_is_the_same_task(self, store: SqliteStore) -> None:
        dead = await given_up(store)
        twins = [replay_of(dead) for _ in range(100)]
        answers = await asyncio.gather(*(store.replay(dead.id, twin) for twin in twins))
        assert {answer.id for answer in answers} == {twins[0].id}
        assert [task.id async for task in store.unfinished()] == [twins[0].id]

    async def test_is_not_forgotten_when_the_end_is_written_again(self, store: SqliteStore) -> None:
        """Its writer could not tell if it was written, and tries again after the replay."""
        dead = await given_up(store)
        new = replay_of(dead)
        await store.replay(dead.id, new)
        await store.finish(dead, Results())
        assert not dead.dead
        kept = await store.get(dead.id)
        assert kept is not None
        assert kept.replayed_as == new.id
        assert await store.stdin(new.id) == BODY
        assert await store.dead_letters() == NONE

    async def test_may_die_and_be_replayed_itself(self, store: SqliteStore) -> None:
        dead = await given_up(store)
        second, third = replay_of(dead), replay_of(dead)
        await store.replay(dead.id, second)
        await die(store, second)
        assert await listed(store, dead=True) == [second.id]
        await store.replay(second.id, third)
        assert await store.stdin(third.id) == BODY

    async def test_of_what_is_no_dead_letter_is_refused(self, store: SqliteStore) -> None:
        succeeded, queued = a_task(State.SUCCEEDED), a_task()
        await store.finish(succeeded, Results())
        await store.add(queued, BODY, None)
        for task in (succeeded, queued):
            with pytest.raises(NotDead, match=f"{task.id} is {task.state}"):
                await store.replay(task.id, replay_of(task))
        with pytest.raises(TaskUnknown):
            await store.replay("a-none", replay_of(queued))
        assert await store.stdin(queued.id) == BODY

    async def test_that_is_no_longer_kept_is_not_made_again(self, store: SqliteStore) -> None:
        dead = await given_up(store)
        new = replay_of(dead)
        await store.replay(dead.id, new)
        new.state, new.expires_us = State.SUCCEEDED, T0_US
        await store.finish(new, Results())
        await store.expire(T0_US, 100)
        with pytest.raises(TaskUnknown, match=new.id):
            await store.replay(dead.id, replay_of(dead))

    async def test_is_refused_like_any_new_task_on_a_full_disk(self, tmp_path: Path) -> None:
        path = tmp_path / "full.db"
        store = SqliteStore(path, min_free_mib=0)
        await store.open()
        dead = await given_up(store)
        await store.close()
        full = SqliteStore(path, min_free_mib=1 << 40)
        await full.open()
        with pytest.raises(DiskFull):
            await full.replay(dead.id, replay_of(dead))
        assert await full.stdin(dead.id) == BODY
        assert await full.dead_letters() == DeadLetters(1, 3)
        await full.close()
