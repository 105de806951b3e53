"""Stores of earlier programs that have batches (`tests.scheduler.store.record`) are read, and their batches go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from scheduler.batch import BatchState, Format, state_of
from scheduler.store.batch_contract import MadeTask
from scheduler.store.contract import Body, Idempotency, Results
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State
from tests.scheduler.store.record import BLOBS, RECORDED_BATCHES
from tests.scheduler.store.samples import HOUR_US, T0_US, a_task

VERSIONS = sorted(int(folder.name.removeprefix("schema_")) for folder in RECORDED_BATCHES.iterdir())


@pytest.fixture(params=VERSIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteStore:
    path = tmp_path / "tasks.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((RECORDED_BATCHES / f"schema_{request.param}" / "tasks.sql").read_text())
    return SqliteStore(path, min_free_mib=0)


async def test_each_batch_is_as_it_was(store: SqliteStore) -> None:
    await store.open()
    batches = store.batches
    assert [batch.id for batch in await batches.open_batches()] == ["b-again", "b-half"]
    assert [batch.id for batch in await batches.page("acme", None, 10)] == ["b-over", "b-half", "b-again"]
    half, again, over = [await batches.get(f"b-{name}") for name in ("half", "again", "over")]
    assert half is not None
    assert again is not None
    assert over is not None
    assert (half.inputs, half.made, half.next_item, half.spec.name) == (3, 2, 2048, "pages")
    assert (half.format, half.spool) == (Format.TAR, Body(70_000, blob=BLOBS[0]))
    assert await batches.live("b-half") == ["b-half-2"]
    assert (await batches.counts(half)).states == {State.QUEUED: 1, State.SUCCEEDED: 1}
    assert await batches.keyed("acme", "key", T0_US + 1) == half
    counts = await batches.counts(again)
    assert (counts.again, counts.states) == (1, {State.SUCCEEDED: 1})
    assert [(item, task.id) for item, task in await batches.failed(again, 10)] == [(0, "b-again-1")]
    assert state_of(over, await batches.counts(over)) is BatchState.SUCCEEDED
    assert [(place, task.id) for place, task in await batches.ended("b-half", 0, 10)] == [(1, "b-half-1")]
    assert [place for place, _ in await batches.ended("b-again", 0, 10)] == [1, 2]
    assert await store.stdin("b-half-2") == Body(70_000, blob=BLOBS[1])
    assert await store.blobs_in_use() == {BLOBS[0], BLOBS[1]}
    await store.close()


async def test_each_batch_goes_on(store: SqliteStore) -> None:
    await store.open()
    batches = store.batches
    half = await batches.get("b-half")
    assert half is not None
    half.made, half.next_item = 3, 4096
    third = a_task(id="b-half-3", batch=half.id)
    await batches.fill(half, [MadeTask(third, Body(0), 2048)])
    for task_id in ("b-half-2", "b-half-3"):
        task = await store.get(task_id)
        assert task is not None
        task.begin_attempt(T0_US + 5, cold_start=False)
        task.move(State.SUCCEEDED)
        task.ended_us = T0_US + 1005
        await store.finish(task, Results())
    assert [place for place, _ in await batches.ended("b-half", 0, 10)] == [1, 2, 3]
    half.ended_us, half.expires_us = T0_US + 2000, T0_US + HOUR_US
    await batches.save(half)
    before = store.kept.of("acme")
    for _ in range(3):
        await store.expire(T0_US + 2 * HOUR_US, 100)
    assert [batch.id for batch in await batches.page("acme", None, 10)] == ["b-again"]
    assert await store.blobs_in_use() == set()
    assert 0 < store.kept.of("acme") < before
    second = await batches.add(half, Idempotency("key", b"another"), 10)
    assert second.id == half.id
    await store.close()
