"""Ended tasks that are still in memory."""

from __future__ import annotations

import pytest

from scheduler.store.contract import Body, Results
from scheduler.store.recent_ends import RecentEnds
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State
from tests.scheduler.store.samples import T0_US, a_task


def test_the_oldest_go_first() -> None:
    recent = RecentEnds(2)
    tasks = [a_task(state=State.SUCCEEDED) for _ in range(3)]
    for task in tasks:
        recent.keep(task)
    assert [recent.get(task.id) for task in tasks] == [None, *tasks[1:]]


@pytest.mark.parametrize(("state", "batch"), [(State.FAILED, None), (State.SUCCEEDED, "b-1")])
def test_a_task_whose_row_may_change_is_not_kept(state: State, batch: str | None) -> None:
    recent, task = RecentEnds(), a_task(state=state)
    task.batch = batch
    recent.keep(task)
    assert recent.get(task.id) is None


async def test_an_ended_task_is_gone_as_soon_as_its_row_has_expired(store: SqliteStore) -> None:
    task = a_task()
    await store.add(task, Body(3, b"abc"), None)
    task.begin_attempt(T0_US, cold_start=False)
    task.move(State.SUCCEEDED)
    task.expires_us = T0_US + 1
    await store.finish(task, Results())
    assert await store.get(task.id) is task
    await store.expire(T0_US, 10)
    assert await store.get(task.id) is task
    await store.expire(T0_US + 1, 10)
    assert await store.get(task.id) is None
