"""The task manager under everything at once, from a seed: each task has one outcome, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from scheduler.errors import DiskFull, EngineRefused, SchedulerError, SlotLost
from scheduler.policy.limits import Limits
from scheduler.store.contract import TaskFilter
from scheduler.task import Reason, State, Task
from tests.scheduler.conftest import NewWorld, World, until
from tests.scheduler.fakes import FakeRun, cat

TASKS = 150


class Chaos:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.submitted: list[Task] = []
        self.answers: list[str] = []

    def program(self, run: FakeRun) -> None:
        """Any program, in any slot."""
        dice, loop = self.dice, self.world.executor.loop
        run.obeys = dice.random() < 0.9
        if dice.random() < 0.3:
            run.outgrow(b"x" * dice.choice([0, 10, 70_000]), b"log")
        after_s = dice.choice([0, 0, 0.001, 0.02])
        fate = dice.random()
        if fate < 0.15:
            loop.call_later(after_s, run.lose, "its guest is gone")
        elif fate < 0.2 or not run.obeys:
            # It hangs; and where it does not even die of its kill, its slot goes in the end.
            loop.call_later(0.2, run.lose, "its guest did not end a killed task in time")
        elif fate < 0.3:
            loop.call_later(after_s, self.end_unclean, run)
        else:
            loop.call_later(after_s, run.exit, dice.choice([0, 0, 1]), b"y" * dice.choice([0, 100_000]))

    def end_unclean(self, run: FakeRun) -> None:
        run.exit(0, clean=False)
        run.lose("it could not be cleaned")

    async def call(self) -> None:
        """A sync client: patient, impatient, or gone."""
        dice, world = self.dice, self.world
        running = world.begin(
            account=dice.choice("abc"),
            queue_timeout_s=dice.choice([0.02, 5]),
            timeout_s=dice.choice([0.05, 5]),
        )
        if dice.random() < 0.3:
            await asyncio.sleep(dice.choice([0, 0.001, 0.02]))
            running.cancel()
        outcome = (await asyncio.gather(running, return_exceptions=True))[0]
        if isinstance(outcome, (SchedulerError, asyncio.CancelledError)):
            self.answers.append(type(outcome).__name__)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            assert outcome[0].ended
            self.answers.append(outcome[0].state)

    async def submit(self) -> None:
        """An async client, who sometimes thinks better of it."""
        dice, world = self.dice, self.world
        task = await world.submit(
            b"%d" % len(self.submitted),
            account="acme",
            timeout_s=dice.choice([0.05, 5]),
            retries=dice.choice([0, 0, 3]),
        )
        self.submitted.append(task)
        if dice.random() < 0.3:
            await asyncio.sleep(dice.choice([0, 0.001, 0.02]))
            await world.manager.cancel("acme", task.id)

    async def trouble(self) -> None:
        """What happens to the platform meanwhile."""
        dice, world = self.dice, self.world
        while True:
            await asyncio.sleep(0.01)
            if dice.random() < 0.2:
                world.launcher.refuse.append(EngineRefused("no more room"))
            if dice.random() < 0.1:
                world.executor.refuse.append(SlotLost("it died unnoticed"))
            if dice.random() < 0.1 and world.executor.current:
                world.executor.lose(
                    dice.choice(sorted(world.executor.current)), "the kernel had enough of it"
                )
            world.store.trouble = DiskFull() if dice.random() < 0.1 else None


@pytest.mark.parametrize("seed", range(8))
async def test_every_task_has_one_outcome(new_world: NewWorld, seed: int) -> None:
    limits = Limits(start_backoff_s=0.001, start_backoff_max_s=0.01, patience_s=0.02)
    # With few attempts the platform gives tasks up, with many it does not.
    world = await new_world(max_attempts=[20, 2][seed % 2], limits=limits, own_backoff_s=0.001)
    chaos = Chaos(world, seed)
    world.executor.program = chaos.program
    trouble = asyncio.create_task(chaos.trouble())
    clients = []
    for _ in range(TASKS):
        clients.append(asyncio.create_task(chaos.dice.choice([chaos.call, chaos.submit])()))
        await asyncio.sleep(chaos.dice.choice([0, 0, 0.003]))
    await asyncio.gather(*clients)
    trouble.cancel()
    world.store.trouble = None
    world.launcher.refuse.clear()
    world.executor.refuse.clear()
    await until(lambda: not world.facts()["tasks_known"], 20)
    await until(lambda: not world.facts()["slots_running"], 20)
    world.assert_nothing_left()
    assert world.manager._roster._watchers == {}
    assert len(chaos.answers) + len(chaos.submitted) == TASKS
    ended = [task.id for task in world.ended.tasks]
    assert len(set(ended)) == len(ended), "a task ended twice"
    assert {task.id for task in chaos.submitted} <= set(ended), "a task was lost"
    for task in chaos.submitted:
        kept = await world.store.get(task.id)
        assert kept is not None
        assert kept.state in (State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED)
        # Each attempt that ran to an end of its own is billed, and no other.
        assert len(kept.failed_attempts) <= kept.spec.retries
        billed = 700 * len(kept.failed_attempts)
        assert kept.cpu_us in (billed, billed + 700)
        assert kept.dead == (kept.reason is Reason.PLATFORM)
        assert (await world.store.stdin(task.id) is not None) == kept.dead
    await replayed(world)


async def replayed(world: World) -> None:
    """Replay the dead letters: each comes to its end, with its own input."""
    world.executor.program = cat
    while dead := await world.manager.page(TaskFilter("acme", dead=True)):
        for old in dead:
            stdin = await world.store.stdin(old.id)
            assert stdin is not None
            new = await world.wait(await world.manager.replay("acme", old.id))
            assert new.state is State.SUCCEEDED
            assert await world.stdout(new) == stdin.inline
