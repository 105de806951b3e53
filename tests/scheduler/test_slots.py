"""The keeper of slots: what it remembers of those that were lost."""

from __future__ import annotations

import time

from scheduler.pool import PoolKey
from scheduler.slots import POST_MORTEMS_KEPT, SlotKeeper
from scheduler.task import Isolation, Resources
from tests.scheduler.fakes import CAT, FakeExecutor, FakeLauncher

POOL = PoolKey("acme", CAT.digest, Resources(100, 512), Isolation.SHARED)


async def test_why_slots_died_is_remembered_of_the_latest() -> None:
    executor = FakeExecutor()
    launcher = FakeLauncher(executor)
    keeper = SlotKeeper(
        launcher,
        executor,
        lambda slot_id, reason, fatal: None,
        started=lambda seconds: None,
        clock=time.monotonic,
    )
    launcher.out_of_memory = True
    for number in range(POST_MORTEMS_KEPT + 1):
        keeper.start(f"s{number}", POOL, CAT)
        keeper.lost(f"s{number}", "its container ended")
    assert await keeper.out_of_memory(f"s{POST_MORTEMS_KEPT}")
    assert await keeper.out_of_memory("s1")
    assert not await keeper.out_of_memory("s0")
    await keeper.close()
