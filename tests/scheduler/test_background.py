"""Work beside its callers."""

from __future__ import annotations

import asyncio

from scheduler.background import Background


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
