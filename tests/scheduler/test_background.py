"""Work beside its callers."""

from __future__ import annotations

import asyncio

from scheduler.background import Background
from tests.scheduler.conftest import until


async def test_repeated_work_that_fails_goes_on() -> None:
    background = Background()
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise ValueError("a bug")

    background.every(0.001, broken)
    await until(lambda: len(calls) >= 3)
    await background.stop(0)
    count = len(calls)
    await asyncio.sleep(0.01)
    assert len(calls) == count


async def test_stopping_waits_for_what_ends_in_time_and_cancels_the_rest() -> None:
    background = Background()
    ended: list[str] = []

    async def work(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        ended.append(name)

    background.spawn(work("quick", 0.01))
    slow = background.spawn(work("slow", 60))
    await background.stop(0.1)
    assert ended == ["quick"]
    assert slow.cancelled()
