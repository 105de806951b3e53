"""Callbacks in the store: there from the end of their task on, for as long as they are of use."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from scheduler.callback import Callback, CallbackFilter, CallbackState
from scheduler.callbacks.verdict import Answer, after_try, again, give_up
from scheduler.errors import CallbackNotFailed, CallbackUnknown
from scheduler.store import callback_rows
from scheduler.store.callbacks import SqliteCallbacks
from scheduler.store.contract import Body, Durability, Results
from scheduler.store.rows import task_row
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Reason, State, Task
from tests.scheduler.store.samples import T0_US, a_task

URL = "https://example.com/hook"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "tasks.db", min_free_mib=0)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def callbacks(store: SqliteStore) -> SqliteCallbacks:
    return SqliteCallbacks(store)


async def ended(store: SqliteStore, account: str = "acme", url: str | None = URL) -> Task:
    task = a_task(State.SUCCEEDED, account=account, callback_url=url, ended_us=T0_US, exit_code=0)
    await store.finish(task, Results())
    return task


async def waiting(callbacks: SqliteCallbacks) -> list[Callback]:
    found = [callback async for portion in callbacks.waiting() for callback in portion]
    return [callback for callback in found if isinstance(callback, Callback)]


async def listed(callbacks: SqliteCallbacks, account: str = "acme", **wanted: object) -> list[str]:
    page = await callbacks.page(CallbackFilter(account, **wanted))  # type: ignore[arg-type]
    return [callback.task_id for callback in page]


async def test_it_waits_from_the_end_of_its_task(store: SqliteStore, callbacks: SqliteCallbacks) -> None:
    task = a_task(callback_url=URL)
    await store.add(task, Body(3, b"abc"), None)
    assert await waiting(callbacks) == []
    task.begin_attempt(T0_US, cold_start=False)
    task.move(State.SUCCEEDED)
    task.ended_us = T0_US + 5
    await store.finish(task, Results())
    expected = Callback(task.id, "acme", URL, T0_US + 5, T0_US + 5, due_us=T0_US + 5)
    assert await waiting(callbacks) == [expected]
    assert await callbacks.due(task.id) == (expected, task)


async def test_a_task_that_asked_for_none_has_none(store: SqliteStore, callbacks: SqliteCallbacks) -> None:
    task = await ended(store, url=None)
    assert await waiting(callbacks) == []
    assert await callbacks.due(task.id) is None


async def test_an_end_that_is_written_again_makes_no_second_one(
    store: SqliteStore, callbacks: SqliteCallbacks
) -> None:
    task = await ended(store)
    (callback,) = await waiting(callbacks)
    await callbacks.save(after_try(callback, Answer(200), T0_US))
    await store.finish(task, Results())
    assert await waiting(callbacks) == []


async def test_a_dead_letter_has_one_too(store: SqliteStore, callbacks: SqliteCallbacks) -> None:
    task = a_task(callback_url=URL)
    await store.add(task, Body(3, b"abc"), None)
    task.move(State.FAILED)
    task.reason, task.dead, task.ended_us = Reason.PLATFORM, True, T0_US
    await store.finish(task, Results())
    found = await callbacks.due(task.id)
    assert found is not None
    assert found[1].dead


async def test_it_outlives_its_task_and_a_restart(store: SqliteStore, callbacks: SqliteCallbacks) -> None:
    task = await ended(store)
    (callback,) = await waiting(callbacks)
    tried = after_try(callback, Answer(500), T0_US)
    await callbacks.save(tried)
    task.expires_us = T0_US + 1
    await store.finish(task, Results())
    await store.expire(T0_US + 1, 100)
    await store.close()
    await store.open()
    assert await store.get(task.id) is None
    found = await callbacks.due(task.id)
    assert found is not None
    assert (found[0], found[1].id, found[1].state) == (tried, task.id, State.SUCCEEDED)


async def test_all_that_wait_are_found_in_portions(store: SqliteStore, callbacks: SqliteCallbacks) -> None:
    tasks = [await ended(store) for _ in range(3)]
    callback = (await waiting(callbacks))[0]

    def many(connection: sqlite3.Connection) -> None:
        for number in range(1_200):
            callback_rows.add(connection, replace(callback, task_id=f"b-{number:05d}"), b"", store.kept)

    await store.write(many, Durability.PROCESS)
    portions = [len(portion) async for portion in callbacks.waiting()]
    assert sum(portions) == len(tasks) + 1_200
    assert max(portions) <= 500


class TestLists:
    async def test_are_of_one_account_newest_first(
        self, store: SqliteStore, callbacks: SqliteCallbacks
    ) -> None:
        first, second, third = [await ended(store) for _ in range(3)]
        await ended(store, "other")
        assert await listed(callbacks) == [third.id, second.id, first.id]
        assert await listed(callbacks, limit=2) == [third.id, second.id]
        assert await listed(callbacks, before=second.id) == [first.id]
        assert await listed(callbacks, "nobody") == []

    async def test_are_of_one_state(self, store: SqliteStore, callbacks: SqliteCallbacks) -> None:
        tasks = [await ended(store) for _ in range(3)]
        made, failed, still = await waiting(callbacks)
        await callbacks.save(after_try(made, Answer(204), T0_US))
        await callbacks.save(after_try(failed, Answer(410), T0_US))
        for state, task in zip(("made", "failed", "waiting"), tasks, strict=True):
            assert await listed(callbacks, state=CallbackState(state)) == [task.id]
        assert await callbacks.due(still.task_id) is not None
        assert await callbacks.due(made.task_id) is None
        assert await callbacks.due(failed.task_id) is None


class TestRevival:
    async def test_of_a_failed_one(self, store: SqliteStore, callbacks: SqliteCallbacks) -> None:
        task = await ended(store)
        (callback,) = await waiting(callbacks)
        await callbacks.save(give_up(callback, T0_US))
        revived, was_failed = await callbacks.revive("acme", task.id, lambda failed: again(failed, T0_US + 9))
        assert (was_failed, revived.due_us, revived.state) == (True, T0_US + 9, CallbackState.WAITING)
        assert await callbacks.due(task.id) == (revived, task)
        # A second time it waits already.
        assert await callbacks.revive("acme", task.id, lambda _: callback) == (revived, False)
        assert await callbacks.expire(1 << 62, 100) == 0

    async def test_of_another_accounts_or_an_unknown_one_is_refused(
        self, store: SqliteStore, callbacks: SqliteCallbacks
    ) -> None:
        task = await ended(store)
        for account, task_id in (("other", task.id), ("acme", "a-none")):
            with pytest.raises(CallbackUnknown, match=task_id):
                await callbacks.revive(account, task_id, lambda callback: callback)

    async def test_of_one_that_was_made_is_refused(
        self, store: SqliteStore, callbacks: SqliteCallbacks
    ) -> None:
        task = await ended(store)
        (callback,) = await waiting(callbacks)
        await callbacks.save(after_try(callback, Answer(200), T0_US))
        with pytest.raises(CallbackNotFailed, match="was made"):
            await callbacks.revive("acme", task.id, lambda callback: callback)


class TestBounds:
    async def test_what_ended_expires(self, store: SqliteStore, callbacks: SqliteCallbacks) -> None:
        for _ in range(3):
            await ended(store)
        made, failed, still = await waiting(callbacks)
        made, failed = after_try(made, Answer(200), T0_US), give_up(failed, T0_US)
        for each in (made, failed):
            await callbacks.save(each)
        assert made.expires_us is not None
        assert failed.expires_us is not None
        assert await callbacks.expire(made.expires_us - 1, 100) == 0
        assert await callbacks.expire(made.expires_us, 100) == 1
        assert await listed(callbacks) == [still.task_id, failed.task_id]
        assert await callbacks.expire(failed.expires_us, 100) == 1
        assert await callbacks.expire(1 << 62, 100) == 0, "one that waits does not expire"

    async def test_of_an_accounts_failed_ones_the_newest_stay(
        self, store: SqliteStore, callbacks: SqliteCallbacks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(callback_rows, "MOST_FAILED", 3)
        tasks = [await ended(store) for _ in range(5)]
        other = await ended(store, "other")
        for callback in await waiting(callbacks):
            await callbacks.save(give_up(callback, T0_US))
        assert await listed(callbacks) == [task.id for task in reversed(tasks[2:])]
        assert await listed(callbacks, "other") == [other.id]


async def test_its_bytes_are_its_account_s(store: SqliteStore, callbacks: SqliteCallbacks) -> None:
    """Also while a receiver is away for days and the tasks themselves are gone."""

    async def counted() -> int:
        sizes = "SELECT coalesce(sum(length(record) + coalesce(length(facts), 0)), 0) FROM callbacks"
        (size_bytes,) = await store.read(lambda db: db.execute(sizes).fetchone())
        return int(size_bytes)

    def kept() -> int:
        return store.kept.of("acme")

    tasks = [await ended(store) for _ in range(3)]
    rows = sum(len(task_row(task)[-1]) for task in tasks)
    assert kept() == rows + await counted() > rows
    # The same end, written once more, counts once.
    await store.finish(tasks[0], Results())
    assert kept() - await counted() == rows
    for task, answer in zip(tasks, (Answer(204), Answer(410), Answer(500)), strict=True):
        found = await callbacks.due(task.id)
        assert found is not None
        await callbacks.save(after_try(found[0], answer, T0_US))
        assert kept() - await counted() == rows
    await callbacks.revive("acme", tasks[1].id, lambda failed: again(failed, T0_US))
    await callbacks.fail_unreadable(tasks[1].id, T0_US, T0_US + 1)
    assert kept() - await counted() == rows
    assert await callbacks.expire(T0_US + 10**15, 100) == 2
    assert kept() - await counted() == rows
    await store.close()
    await store.open()
    assert kept() - await counted() == rows
