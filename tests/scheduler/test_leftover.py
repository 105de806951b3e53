"""CPU time that a slot uses after its last task, to clean up after it, goes to the bill of that task."""

from __future__ import annotations

import asyncio

from scheduler.task import Task
from tests.scheduler.conftest import World


async def cpu_us(world: World, task: Task) -> int:
    return (await world.manager.get(task.spec.account, task.id)).cpu_us


async def test_the_last_task_of_a_slot_pays_for_what_the_slot_used_after_it(world: World) -> None:
    world.executor.program = lambda run: run.exit(0)
    first, _ = await world.run()
    last, _ = await world.run()
    assert len({run.slot_id for run in world.executor.runs}) == 1
    before = await cpu_us(world, first), await cpu_us(world, last)
    slot_id = world.executor.runs[-1].slot_id
    world.executor.events.left_over(slot_id, 640_000)

    async def billed() -> bool:
        return await cpu_us(world, last) == before[1] + 640_000

    async with asyncio.timeout(60):
        while not await billed():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await cpu_us(world, first) == before[0]
    # It is told once; whatever comes again is nobody's.
    world.executor.events.left_over(slot_id, 640_000)
    await world.settled()
    assert await billed()


async def test_what_a_slot_without_any_task_used_is_nobodys(world: World) -> None:
    world.executor.program = lambda run: run.exit(0)
    task, _ = await world.run()
    world.executor.events.left_over("never-there", 1000)
    await world.settled()
    assert await cpu_us(world, task) == task.cpu_us
