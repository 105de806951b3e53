"""New tasks that run, and even end, while they are being written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.errors import DiskFull, SchedulerError, StaleLease
from scheduler.store.contract import Body, Results
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State, Task
from tests.scheduler.store.samples import T0_US, a_task

BODY = Body(5, b"input")
RESULTS = Results(Body(6, b"output"))


class HeldStore(SqliteStore):
    """A store whose disk can be made full, and whose commits wait for an external writer that holds the database."""

    full = False

    def _check_space(self) -> None:
        if self.full:
            raise DiskFull("the disk is full")

    def hold(self) -> sqlite3.Connection:
        """Another program's transaction: no commit begins before it ends."""
        holder = sqlite3.connect(self.path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        return holder


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[HeldStore]:
    store = HeldStore(tmp_path / "tasks.db", min_free_mib=0)
    await store.open()
    yield store
    await store.close()


def ended(task: Task, state: State = State.SUCCEEDED) -> Task:
    task.begin_attempt(T0_US, cold_start=False)
    task.move(state)
    task.expires_us = T0_US + 1
    return task


async def add_and_finish(store: SqliteStore, count: int, results: Results = RESULTS) -> list[Task]:
    """Tasks that end before anything of them is written."""
    tasks = [a_task() for _ in range(count)]
    adds = [store.add(task, BODY, None) for task in tasks]
    ends = [store.finish(ended(task), results) for task in tasks]
    await asyncio.gather(*adds, *ends)
    return tasks


async def test_tasks_that_end_before_they_are_written_are_there_with_their_results(held: HeldStore) -> None:
    holder = held.hold()
    working = asyncio.create_task(add_and_finish(held, 40))
    await asyncio.sleep(0)
    holder.close()
    tasks = await working
    await held.close()
    await held.open()
    for task in tasks:
        assert await held.get(task.id) == task
        assert await held.results(task.id) == RESULTS
        assert await held.stdin(task.id) is None
    assert [task async for task in held.unfinished()] == []


async def test_they_are_counted_as_others_are(held: HeldStore) -> None:
    await add_and_finish(held, 3)
    together = held.kept.of("acme")
    task = a_task()
    await held.add(task, BODY, None)
    await held.finish(ended(task), RESULTS)
    assert held.kept.of("acme") * 3 == together * 4
    await held.expire(T0_US + 1, 100)
    assert held.kept.of("acme") == 0


async def test_the_blob_of_a_result_is_known(held: HeldStore) -> None:
    await add_and_finish(held, 1, Results(Body(10**6, blob="0" * 32)))
    assert await held.blobs_in_use() == {"0" * 32}


@pytest.mark.parametrize("has_begun", [False, True])
async def test_the_end_of_a_task_that_was_refused_is_not_written(held: HeldStore, has_begun: bool) -> None:
    held.full = True
    holder = held.hold()
    task = a_task()
    adding = asyncio.ensure_future(held.add(task, BODY, None))
    if has_begun:
        # Its commit, which then has no place for the end.
        held._additions[task.id].take()
    ending = asyncio.ensure_future(held.finish(ended(task), RESULTS))
    await asyncio.sleep(0)
    holder.close()
    with pytest.raises(DiskFull):
        await adding
    with pytest.raises(StaleLease, match="not accepted"):
        await ending
    assert await held.get(task.id) is None
    assert held.kept.of("acme") == 0


async def test_one_refused_task_does_not_take_others_ends_with_it(held: HeldStore) -> None:
    known, running = a_task(), a_task()
    for task in (known, running):
        await held.add(task, BODY, None)
    holder = held.hold()
    adds = [held.add(a_task(id=known.id), BODY, None), *(held.add(a_task(), BODY, None) for _ in range(3))]
    ending = asyncio.ensure_future(held.finish(ended(running), RESULTS))
    await asyncio.sleep(0)
    holder.close()
    refused, *added = await asyncio.gather(*adds, return_exceptions=True)
    assert isinstance(refused, SchedulerError)
    assert all(isinstance(task, Task) for task in added)
    await ending
    assert await held.results(running.id) == RESULTS
