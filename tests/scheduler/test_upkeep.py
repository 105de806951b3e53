"""What the cleaner of a set does when it is asked twice, and when the disk does not answer."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from scheduler.errors import StoreError
from tests.scheduler.conftest import World, until


async def test_one_sweep_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upkeep = world.manager._upkeep
    await until(lambda: not upkeep._sweeping)
    ages: list[float] = []
    go_on = asyncio.Event()

    async def slow(kept: set[str], age_s: float) -> int:
        ages.append(age_s)
        await go_on.wait()
        return 0

    monkeypatch.setattr(world.blobs, "sweep", slow)
    upkeep.sweep(3600.0)
    await until(lambda: ages)
    upkeep.sweep(1.0)
    go_on.set()
    await until(lambda: not upkeep._sweeping)
    assert ages == [3600.0]
    upkeep.sweep(7200.0)
    await until(lambda: len(ages) == 2)


async def test_a_removal_under_way_does_the_rounds_of_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = world.manager._upkeep
    await until(lambda: not upkeep._expiring)
    rounds = 0
    go_on = asyncio.Event()

    async def slow(now_us: int, limit: int) -> list[str]:
        nonlocal rounds
        rounds += 1
        await go_on.wait()
        return []

    monkeypatch.setattr(world.store, "expire", slow)
    upkeep.expire(2)
    await until(lambda: rounds)
    upkeep.expire(3)
    go_on.set()
    await until(lambda: not upkeep._expiring)
    assert rounds == 5


async def test_a_sweep_that_fails_is_logged_and_the_next_one_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = world.manager._upkeep
    await until(lambda: not upkeep._sweeping)
    reads = 0

    async def in_use() -> set[str]:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise StoreError("the disk does not answer")
        return set()

    monkeypatch.setattr(world.store, "blobs_in_use", in_use)
    with capture_logs() as lines:
        upkeep.sweep(3600.0)
        await until(lambda: not upkeep._sweeping)
        upkeep.sweep(3600.0)
        await until(lambda: reads == 2 and not upkeep._sweeping)
    assert [line["event"] for line in lines] == ["orphaned blobs could not be removed"]
