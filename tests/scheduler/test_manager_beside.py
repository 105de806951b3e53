"""Async tasks that run while they are being written: their callers hear of them afterwards, or never."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection

import pytest

from scheduler.async_entry import AsyncEntry
from scheduler.errors import DiskFull, StoreError, TaskUnknown
from scheduler.manager import Manager
from scheduler.store.contract import Idempotency, TaskFilter
from scheduler.task import State
from tests.scheduler.conftest import World, blob_files, until
from tests.scheduler.fakes import cat


def hold(world: World) -> sqlite3.Connection:
    """Another program's transaction: none of the store's begins before it ends."""
    holder = sqlite3.connect(world.store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    return holder


def known_id(manager: Manager) -> str:
    (task_id,) = manager._roster.entries
    return task_id


async def test_a_task_begins_before_it_is_written_and_is_acknowledged_afterwards(world: World) -> None:
    holder = hold(world)
    submitting = asyncio.create_task(world.submit())
    run = await world.started()
    run.exit(0, b"output")
    await until(lambda: world.facts()["slots_running"] == 0)
    assert not submitting.done()
    holder.close()
    task = await submitting
    assert (await world.wait(task)).state is State.SUCCEEDED
    assert await world.stdout(task) == b"output"
    world.assert_nothing_left()


async def test_one_under_a_key_begins_once_it_is_written(world: World) -> None:
    holder = hold(world)
    submitting = asyncio.create_task(world.submit(idempotency=Idempotency("k", b"one")))
    commits = world.store._commits
    assert commits is not None
    await until(lambda: commits._handed > 0)
    assert not world.manager._roster.entries
    holder.close()
    await submitting
    await world.started()


async def test_a_task_that_runs_and_cannot_be_written_is_killed_and_leaves_no_trace(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = hold(world)
    submitting = asyncio.create_task(world.submit())
    run = await world.started()
    run.outgrow(bytes(100_000))
    deleted: list[str] = []
    delete = world.blobs.delete

    async def noted(names: Collection[str]) -> None:
        await delete(names)
        deleted.extend(names)

    monkeypatch.setattr(world.blobs, "delete", noted)
    task_id = known_id(world.manager)
    world.store.full = True
    holder.close()
    with pytest.raises(DiskFull) as refused:
        await submitting
    assert refused.value.executed, "another set must not be asked to run it at once"
    await until(lambda: not world.manager._roster.entries)
    assert run.killed
    # Its output would fill a full disk for a day, until the next sweep.
    await until(lambda: len(deleted) == 1)
    assert not blob_files(world)
    with pytest.raises(TaskUnknown):
        await world.manager.get("acme", task_id)
    assert await world.manager.page(TaskFilter("acme")) == []
    assert world.ended.tasks == []
    world.assert_nothing_left()


async def test_a_task_that_has_ended_and_cannot_be_written_leaves_no_trace(world: World) -> None:
    world.executor.program = cat
    holder = hold(world)
    submitting = asyncio.create_task(world.submit())
    await world.started()
    world.store.full = True
    holder.close()
    with pytest.raises(DiskFull):
        await submitting
    await until(lambda: not world.manager._roster.entries)
    assert await world.manager.page(TaskFilter("acme")) == []
    assert world.ended.tasks == []
    world.store.full = False
    assert (await world.wait(await world.submit())).state is State.SUCCEEDED


async def test_a_task_whose_input_is_not_there_yet_waits_for_it(world: World) -> None:
    world.executor.program = cat
    world.store.adding = asyncio.get_running_loop().create_future()
    submitting = asyncio.create_task(world.submit(b"late"))
    await until(lambda: world.facts()["slots_running"])
    world.store.adding.set_result(None)
    task = await submitting
    assert (await world.wait(task)).state is State.SUCCEEDED
    assert await world.stdout(task) == b"late"


async def test_a_task_that_is_refused_before_it_begins_is_not_executed(world: World) -> None:
    world.executor.program = cat
    adding = world.store.adding = asyncio.get_running_loop().create_future()
    submitting = asyncio.create_task(world.submit())
    await until(lambda: world.facts()["slots_running"])
    adding.set_exception(StoreError("an I/O error"))
    with pytest.raises(StoreError) as refused:
        await submitting
    assert not refused.value.executed
    assert world.executor.runs == []
    world.store.adding = None
    assert (await world.wait(await world.submit())).state is State.SUCCEEDED
    world.assert_nothing_left()


async def test_a_set_that_stops_meanwhile_goes_on_with_the_task_after_its_start(world: World) -> None:
    holder = hold(world)
    submitting = asyncio.create_task(world.submit(b"again"))
    await world.started()
    closing = asyncio.create_task(world.close())
    await until(lambda: world.manager.stopping)
    holder.close()
    task = await submitting
    await closing
    world.make()
    world.executor.program = cat
    await world.open()
    assert (await world.wait(task)).state is State.SUCCEEDED
    assert await world.stdout(task) == b"again"


async def test_one_whose_account_is_suspended_before_its_failure_is_stored_is_not_run_again(
    world: World,
) -> None:
    holder = hold(world)
    submitting = asyncio.create_task(world.submit(retries=2))
    (await world.started()).exit(1)
    (entry,) = world.manager._roster.entries.values()
    assert isinstance(entry, AsyncEntry)
    written = entry._written
    assert written is not None
    # Its failed attempt waits until the task is on disk.
    await until(lambda: bool(written._callbacks))
    world.manager.cancel_all("acme")
    holder.close()
    ended = await world.wait(await submitting)
    assert (ended.state, ended.exit_code, ended.attempts) == (State.FAILED, 1, 1)
    assert len(world.executor.runs) == 1
    world.assert_nothing_left()
