"""A task manager with a real store against a small model of it: whatever clients do, both say the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from scheduler.clock import wall_us
from scheduler.errors import IdempotencyConflict, NotDead, TaskUnknown
from scheduler.policy.limits import Limits
from scheduler.store.contract import DeadLetters, Idempotency, TaskFilter
from scheduler.task import Reason, State, Task
from tests.model.reference import MAX_ATTEMPTS, RETRIES, Model, Program
from tests.scheduler.conftest import PATIENCE_S, World, until
from tests.scheduler.fakes import FakeRun

T = TypeVar("T")
ACCOUNT = "acme"
LONG_US = 365 * 86_400 * 1_000_000
"""In microseconds; longer than anything that has ended is kept."""
MOST_RUNNING = 3
"""So that nothing waits for a slot."""

programs = st.sampled_from(Program)
keys = st.none() | st.sampled_from(["k", "l"])


class ManagerMachine(RuleBasedStateMachine):
    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.model = Model()
        self.world = self.run(self.made())
        self.staying: dict[str, FakeRun] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def made(self) -> World:
        world = World(Path(self.folder.name))
        world.make(
            max_attempts=MAX_ATTEMPTS,
            limits=Limits(start_backoff_s=0.001, patience_s=0.05, cpu_percent=1_000),
            retry_backoff_s=0.001,
        )
        world.executor.program = self.program
        return await world.open()

    def program(self, run: FakeRun) -> None:
        """Do what the task's input says."""
        stdin = run.work.stdin or b""
        match Program(stdin.decode()):
            case Program.COPIES:
                run.exit(0, stdin)
            case Program.FAILS | Program.FAILS_ALWAYS | Program.FAILS_OTHERWISE:
                run.exit(1)
            case Program.FAILS_ONCE:
                run.exit(1 if run.lease.number == 1 else 0, stdin)
            case Program.LOSES_ONE if run.lease.number > 1:
                run.exit(0, stdin)
            case Program.LOSES_ONE | Program.LOSES_ALL:
                run.lose()
            case Program.STAYS:
                self.staying[run.lease.task_id] = run

    def teardown(self) -> None:
        self.run(self.world.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(key=keys.filter(bool))
    def look_up(self, key: str) -> None:
        """As a router does whose weights have changed."""
        keyed = self.world.manager.keyed(ACCOUNT, key)
        known = self.model.known(key)
        if known is None:
            with pytest.raises(TaskUnknown):
                self.run(keyed)
        else:
            assert self.run(keyed).id == known

    @rule(target=tasks, program=programs, key=keys)
    def submit(self, program: Program, key: str | None) -> str:
        if program is Program.STAYS and len(self.model.running) == MOST_RUNNING:
            program = Program.COPIES
        wanted = None if key is None else Idempotency(key, program.encode())
        retries, codes = RETRIES.get(program, (0, ()))
        submitted = self.world.submit(program.encode(), wanted, retries=retries, retry_exit_codes=codes)
        if self.model.conflicts(key, program):
            with pytest.raises(IdempotencyConflict):
                self.run(submitted)
            return self.model.keys[key or ""][1]
        task = self.run(submitted)
        known = self.model.known(key)
        if known is None:
            self.model.accept(task.id, program, key)
        else:
            assert task.id == known
        return task.id

    @precondition(lambda self: self.model.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self.model.running))
        self.run(self.seen(task_id))
        self.staying.pop(task_id).exit(0, Program.STAYS.encode())
        self.model.end(task_id)

    @rule(task_id=tasks)
    def cancel(self, task_id: str) -> None:
        if self.forgotten(task_id):
            return
        # One that ends by itself has done so before.
        self.run(self.seen(task_id))
        self.run(self.world.manager.cancel(ACCOUNT, task_id))
        self.model.cancel(task_id)

    @rule(target=tasks, task_id=tasks)
    def replay(self, task_id: str) -> str:
        if self.forgotten(task_id):
            return task_id
        self.run(self.seen(task_id))
        expected = self.model.tasks[task_id]
        replay = self.world.manager.replay(ACCOUNT, task_id)
        if expected.replayed_as is not None:
            assert self.run(replay).id == expected.replayed_as
            return expected.replayed_as
        if not expected.dead:
            with pytest.raises(NotDead):
                self.run(replay)
            return task_id
        new = self.run(replay)
        self.model.replay(task_id, new.id)
        return new.id

    @rule()
    def restart(self) -> None:
        async def restart() -> None:
            await self.all_seen()
            await self.world.close()
            self.staying.clear()
            self.world = await self.made()

        self.run(restart())

    @rule()
    def kill(self) -> None:
        """The next set finds the files as they are now; the first one closes without anyone's seeing it."""

        async def kill() -> None:
            await self.all_seen()
            # A commit comes after all rows that were to be written before.
            await self.world.store.expire(0, 1)
            killed = self.folder
            self.folder = tempfile.TemporaryDirectory()
            shutil.copytree(killed.name, self.folder.name, dirs_exist_ok=True)
            await self.world.close()
            killed.cleanup()
            self.staying.clear()
            self.world = await self.made()

        self.run(kill())
        self.model.kill()

    @rule(task_id=tasks)
    def look(self, task_id: str) -> None:
        if not self.forgotten(task_id):
            self.run(self.seen(task_id))

    @rule()
    def expire(self) -> None:
        async def expire() -> None:
            await self.all_seen()
            store = self.world.store
            await self.world.blobs.delete(await store.expire(wall_us() + LONG_US, 10_000))

        self.run(expire())
        self.model.expire()

    def forgotten(self, task_id: str) -> bool:
        """True if the task has expired, and then nobody can do anything with it."""
        if task_id in self.model.tasks:
            return False
        manager = self.world.manager
        for call in (manager.get, manager.cancel, manager.replay):
            with pytest.raises(TaskUnknown):
                self.run(call(ACCOUNT, task_id))
        return True

    async def seen(self, task_id: str) -> Task:
        """Wait until the task is as the model has it; nothing else may come of it."""
        expected = self.model.tasks[task_id]
        manager = self.world.manager
        if expected.ended:
            task = await manager.wait(ACCOUNT, task_id, PATIENCE_S)
        else:
            await until(lambda: task_id in self.staying)
            task = await manager.get(ACCOUNT, task_id)
        found = (str(task.state), task.attempts, task.dead, task.replayed_as)
        assert found == (expected.state, expected.attempts, expected.dead, expected.replayed_as)
        if task.state is State.SUCCEEDED:
            assert await self.world.stdout(task) == expected.program.encode()
        if task.state is State.FAILED:
            platform = expected.attempts == MAX_ATTEMPTS
            assert task.reason is (Reason.PLATFORM if platform else Reason.EXIT)
        return task

    async def all_seen(self) -> None:
        for task_id in self.model.tasks:
            await self.seen(task_id)

    @invariant()
    def all_are_listed_once(self) -> None:
        page = self.run(self.world.manager.page(TaskFilter(ACCOUNT, limit=1_000)))
        assert [task.id for task in page] == sorted(self.model.tasks, reverse=True)

    @invariant()
    def dead_letters_are_counted(self) -> None:
        async def check() -> None:
            await self.all_seen()
            dead = [task for task in self.model.tasks.values() if task.dead]
            size_bytes = sum(len(task.program.encode()) for task in dead)
            assert await self.world.manager.dead_letters() == DeadLetters(len(dead), size_bytes)

        self.run(check())


ManagerMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestModel = ManagerMachine.TestCase
