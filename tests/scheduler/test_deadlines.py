"""Deadlines come in time and in order, and not at all once they are cancelled."""

from __future__ import annotations

import asyncio
import random
from functools import partial

from scheduler.deadlines import Deadline, Deadlines
from scheduler.policy.timers import LENGTHS_SWEPT_AT


async def test_they_come_in_order_whatever_their_length() -> None:
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    came: list[tuple[float, float]] = []
    done = asyncio.Event()
    began = loop.time()
    chance = random.Random(1)
    delays = [chance.choice([0.0, 0.01, 0.02, 0.05, 0.1]) for _ in range(200)]

    def come(delay: float) -> None:
        came.append((delay, loop.time() - began))
        if len(came) == len(delays):
            done.set()

    for delay in delays:
        deadlines.after(delay, partial(come, delay))
    async with asyncio.timeout(60):
        await done.wait()
    assert [delay for delay, _ in came] == sorted(delays)
    assert all(passed >= delay - 0.002 for delay, passed in came)


async def test_a_cancelled_one_never_comes() -> None:
    deadlines = Deadlines()
    came: list[str] = []
    kept: dict[str, Deadline] = {}
    for name in ("a", "b", "c"):
        kept[name] = deadlines.after(0.02, partial(came.append, name))
    kept["b"].cancel()
    kept["b"].cancel()
    await asyncio.sleep(0.1)
    assert came == ["a", "c"]
    kept["a"].cancel()


async def test_an_earlier_one_set_later_comes_first() -> None:
    deadlines = Deadlines()
    came: list[str] = []
    deadlines.after(0.06, lambda: came.append("late"))
    await asyncio.sleep(0.01)
    deadlines.after(0.01, lambda: came.append("early"))
    await asyncio.sleep(0.03)
    assert came == ["early"]
    await asyncio.sleep(0.08)
    assert came == ["early", "late"]


async def test_one_that_fails_keeps_none_from_coming() -> None:
    deadlines = Deadlines()
    came: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: came.append("failed"))

    def fail() -> None:
        raise RuntimeError("a bug")

    deadlines.after(0.01, fail)
    deadlines.after(0.01, lambda: came.append("next"))
    await asyncio.sleep(0.05)
    assert came == ["failed", "next"]


async def test_lengths_that_are_no_longer_used_are_forgotten() -> None:
    deadlines = Deadlines()
    for number in range(20 * LENGTHS_SWEPT_AT):
        deadlines.after(100 + number, lambda: None).cancel()
    assert len(deadlines._timers._lines) <= LENGTHS_SWEPT_AT


async def test_one_that_another_cancels_in_the_same_moment_never_comes() -> None:
    deadlines = Deadlines()
    came: list[str] = []
    kept: list[Deadline] = []

    def first() -> None:
        came.append("first")
        kept[1].cancel()

    kept.append(deadlines.after(0.01, first))
    kept.append(deadlines.after(0.01, lambda: came.append("second")))
    kept.append(deadlines.after(0.01, lambda: came.append("third")))
    await asyncio.sleep(0.05)
    assert came == ["first", "third"]


async def test_one_may_set_and_cancel_others() -> None:
    deadlines = Deadlines()
    came: list[str] = []
    done = asyncio.Event()
    late = deadlines.after(0.03, lambda: came.append("late"))

    def again(count: int) -> None:
        came.append(f"again {count}")
        if count == 3:
            late.cancel()
            deadlines.after(0.03, done.set)
            return
        deadlines.after(0.0, partial(again, count + 1))

    deadlines.after(0.0, partial(again, 1))
    async with asyncio.timeout(60):
        await done.wait()
    assert came == ["again 1", "again 2", "again 3"]


async def test_many_lengths_in_use_at_once_all_come() -> None:
    deadlines = Deadlines()
    came: list[int] = []
    for number in range(3 * LENGTHS_SWEPT_AT):
        deadlines.after(0.01 + number / 1e6, partial(came.append, number))
    async with asyncio.timeout(60):
        while len(came) < 3 * LENGTHS_SWEPT_AT:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert came == sorted(came)
