"""A store against a dictionary: whatever is done to both, they stay alike, across restarts too."""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from scheduler.errors import IdempotencyConflict, NotDead, TaskUnknown
from scheduler.store.contract import (
    EMPTY,
    IDEMPOTENCY_WINDOW_US,
    Body,
    DeadLetterLimits,
    DeadLetters,
    Durability,
    Idempotency,
    Results,
    TaskFilter,
)
from scheduler.store.rows import task_row
from scheduler.store.sqlite import SqliteStore
from scheduler.task import FINAL_STATES, Kind, State, Task, TaskIds
from tests.scheduler.store.samples import HOUR_US, T0_US, a_task

T = TypeVar("T")

DEAD_LETTERS = DeadLetterLimits(tasks=3, size_bytes=150_000)

accounts = st.sampled_from(["acme", "other"])
images = st.sampled_from(["cat:1", "ocr:1"])
names = st.sampled_from([None, "x"])
ended_states = st.sampled_from(sorted(FINAL_STATES))
inline = st.binary(max_size=20).map(lambda data: Body(len(data), data))


class StoreMachine(RuleBasedStateMachine):
    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.store = SqliteStore(
            Path(self.folder.name) / "tasks.db", min_free_mib=0, dead_letter_limits=DEAD_LETTERS
        )
        self.run(self.store.open())
        self.ids = TaskIds("a")
        self.blobs = 0
        self.now_us = T0_US
        self.facts: dict[str, Task] = {}
        self.inputs: dict[str, Body] = {}
        self.results: dict[str, Results] = {}
        self.keys: dict[tuple[str, str], tuple[bytes, str, int]] = {}
        self.free: set[str] = set()
        self.dead: set[str] = set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    def a_blob(self) -> Body:
        self.blobs += 1
        return Body(70_000, blob=f"{self.blobs:032x}")

    def written(self, task: Task) -> None:
        self.facts[task.id] = copy.deepcopy(task)

    @initialize()
    def starts_empty(self) -> None:
        assert self.run(self.store.page(TaskFilter("acme"))) == []

    @rule(
        target=tasks, account=accounts, image=images, name=names, small=st.none() | inline,
        key=st.none() | st.sampled_from(["k", "l"]), fingerprint=st.sampled_from([b"one", b"two"]),
    )  # fmt: skip
    def add(
        self,
        account: str,
        image: str,
        name: str | None,
        small: Body | None,
        key: str | None,
        fingerprint: bytes,
    ) -> Task:
        body = small if small is not None else self.a_blob()
        task = a_task(id=self.ids.new(), account=account, image=image, name=name, created_us=self.now_us)
        wanted = None if key is None else Idempotency(key, fingerprint)
        known = None if key is None else self.keys.get((account, key))
        if known is not None and self.now_us - known[2] < IDEMPOTENCY_WINDOW_US:
            if known[0] != fingerprint:
                with pytest.raises(IdempotencyConflict):
                    self.run(self.store.add(task, body, wanted))
            else:
                kept = self.run(self.store.add(task, body, wanted))
                assert kept == self.facts[known[1]]
                if body.blob is not None:
                    self.free.add(body.blob)
            return copy.deepcopy(self.facts[known[1]])
        assert self.run(self.store.add(task, body, wanted)) is task
        self.written(task)
        self.inputs[task.id] = body
        if key is not None:
            self.keys[account, key] = (fingerprint, task.id, self.now_us)
        return task

    @rule(target=tasks, account=accounts, state=ended_states, expires_in_us=st.integers(0, 30 * HOUR_US))
    def a_sync_task_ends(self, account: str, state: State, expires_in_us: int) -> Task:
        expires_us = self.now_us + expires_in_us
        task = a_task(state, id=self.ids.new(), account=account, kind=Kind.SYNC, expires_us=expires_us)
        self.run(self.store.update(task, Durability.PROCESS))
        self.written(task)
        return task

    @rule(task=tasks, how=st.sampled_from(["process", "power", "later"]), again=st.booleans())
    def start(self, task: Task, how: str, again: bool) -> None:
        if task.ended or task.id not in self.facts or self.facts[task.id].ended:
            return

        async def write() -> None:
            task.state = State.QUEUED if again else State.RUNNING
            task.attempts += 1
            if how == "later":
                self.store.update_later(task)
                # What others write first brings it along.
                self.free -= set(await self.store.expire(0, 0))
            else:
                await self.store.update(task, Durability.POWER if how == "power" else Durability.PROCESS)

        self.run(write())
        self.written(task)

    @rule(
        task=tasks, state=ended_states, small=st.none() | inline, files=st.integers(0, 2),
        expires_in_us=st.none() | st.integers(0, 30 * HOUR_US), started=st.booleans(),
    )  # fmt: skip
    def finish(
        self,
        task: Task,
        state: State,
        small: Body | None,
        files: int,
        expires_in_us: int | None,
        started: bool,
    ) -> None:
        if task.spec.kind is Kind.SYNC or task.id not in self.facts or self.facts[task.id].ended:
            return
        stdout = small if small is not None else self.a_blob()
        results = Results(stdout, EMPTY, {f"/{number}": self.a_blob() for number in range(files)})

        async def write() -> None:
            if started:
                task.state = State.RUNNING
                self.store.update_later(task)
            task.state = state
            task.expires_us = None if expires_in_us is None else self.now_us + expires_in_us
            await self.store.finish(task, results)

        self.run(write())
        self.written(task)
        self.results[task.id] = results
        stdin = self.inputs.pop(task.id, EMPTY)
        if stdin.blob is not None:
            self.free.add(stdin.blob)

    @rule(task=tasks, expires_in_us=st.integers(0, 30 * HOUR_US))
    def give_up(self, task: Task, expires_in_us: int) -> None:
        if task.spec.kind is Kind.SYNC or task.id not in self.facts or self.facts[task.id].ended:
            return
        task.state, task.expires_us, task.dead = State.FAILED, self.now_us + expires_in_us, True
        self.run(self.store.finish(task, Results()))
        self.results[task.id] = Results()
        self.dead.add(task.id)
        self.written(task)
        mine = sorted(each for each in self.dead if self.facts[each].spec.account == task.spec.account)
        while not self.within(mine):
            self.revive(mine[0], None)
            stdin = self.inputs.pop(mine.pop(0))
            if stdin.blob is not None:
                self.free.add(stdin.blob)
        assert task.dead == (task.id in self.dead)

    def within(self, dead: list[str]) -> bool:
        size_bytes = sum(self.inputs[task_id].size_bytes for task_id in dead)
        return len(dead) <= DEAD_LETTERS.tasks and size_bytes <= DEAD_LETTERS.size_bytes

    def revive(self, task_id: str, replayed_as: str | None) -> None:
        self.dead.remove(task_id)
        self.facts[task_id].dead, self.facts[task_id].replayed_as = False, replayed_as

    @rule(target=tasks, task=tasks)
    def replay(self, task: Task) -> Task:
        new = a_task(id=self.ids.new(), account=task.spec.account, created_us=self.now_us)
        old = self.facts.get(task.id)
        replay = self.store.replay(task.id, new)
        if old is None or old.replayed_as not in (None, *self.facts):
            with pytest.raises(TaskUnknown):
                self.run(replay)
        elif old.replayed_as is not None:
            assert self.run(replay) == self.facts[old.replayed_as]
        elif task.id not in self.dead:
            with pytest.raises(NotDead):
                self.run(replay)
        else:
            assert self.run(replay) == new
            self.written(new)
            self.revive(task.id, new.id)
            self.inputs[new.id] = self.inputs.pop(task.id)
            return new
        return task

    @rule(pass_us=st.integers(0, 20 * HOUR_US))
    def time_passes_and_tasks_expire(self, pass_us: int) -> None:
        self.now_us += pass_us
        freed = self.run(self.store.expire(self.now_us, 1_000))
        self.keys = {
            key: use for key, use in self.keys.items() if use[2] > self.now_us - IDEMPOTENCY_WINDOW_US
        }
        keyed = {task_id for _, task_id, _ in self.keys.values()}
        for task in list(self.facts.values()):
            due = task.ended and task.expires_us is not None and task.expires_us <= self.now_us
            if due and task.id not in keyed:
                del self.facts[task.id]
                self.dead.discard(task.id)
                stdin = self.inputs.pop(task.id, EMPTY)
                if stdin.blob is not None:
                    self.free.add(stdin.blob)
                results = self.results.pop(task.id, Results())
                bodies = [results.stdout, *results.files.values()]
                self.free |= {body.blob for body in bodies if body.blob is not None}
        assert sorted(freed) == sorted(self.free)
        self.free = set()

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.run(self.store.open())

    @rule(
        account=accounts, state=st.none() | st.sampled_from(State), image=st.none() | images, name=names,
        limit=st.integers(1, 5), skip=st.integers(0, 5), dead=st.booleans(),
    )  # fmt: skip
    def page(
        self,
        account: str,
        state: State | None,
        image: str | None,
        name: str | None,
        limit: int,
        skip: int,
        dead: bool,
    ) -> None:
        expected = sorted(
            (
                task
                for task in self.facts.values()
                if task.spec.account == account
                and (task.dead if dead else state in (None, task.state))
                and image in (None, task.spec.image)
                and name in (None, task.spec.name)
            ),
            key=lambda task: task.id,
            reverse=True,
        )
        before = expected[skip - 1].id if 0 < skip <= len(expected) else None
        wanted = TaskFilter(account, state, image, name, before, limit, dead)
        assert self.run(self.store.page(wanted)) == expected[skip if before else 0 :][:limit]

    @rule(account=accounts)
    def kept_bytes(self, account: str) -> None:
        """To the byte, however a task's rows, input and results came and went."""
        mine = {task.id: task for task in self.facts.values() if task.spec.account == account}
        expected = sum(len(task_row(task)[-1]) for task in mine.values())
        expected += sum(body.size_bytes for task_id, body in self.inputs.items() if task_id in mine)
        expected += sum(results.size_bytes for task_id, results in self.results.items() if task_id in mine)
        # A list is read once the journal's rows are in the database.
        self.run(self.store.page(TaskFilter(account)))
        assert self.store.kept.of(account) == expected
        others = ["acme", "other"]
        assert self.store.kept.size_bytes == sum(self.store.kept.of(each) for each in others)
        assert self.store.kept.accounts == sum(self.store.kept.of(each) > 0 for each in others)

    @rule(task=tasks)
    def look(self, task: Task) -> None:
        assert self.run(self.store.get(task.id)) == self.facts.get(task.id)
        assert self.run(self.store.stdin(task.id)) == self.inputs.get(task.id)
        assert self.run(self.store.results(task.id)) == self.results.get(task.id)

    @invariant()
    def what_is_unfinished(self) -> None:
        async def unfinished() -> list[Task]:
            return [task async for task in self.store.unfinished()]

        expected = [task for task in self.facts.values() if task.spec.kind is Kind.ASYNC and not task.ended]
        assert self.run(unfinished()) == sorted(expected, key=lambda task: task.id)

    @invariant()
    def dead_letters(self) -> None:
        size_bytes = sum(self.inputs[task_id].size_bytes for task_id in self.dead)
        assert self.run(self.store.dead_letters()) == DeadLetters(len(self.dead), size_bytes)

    @invariant()
    def blobs_in_use(self) -> None:
        bodies = list(self.inputs.values())
        for results in self.results.values():
            bodies += [results.stdout, *results.files.values()]
        assert self.run(self.store.blobs_in_use()) == {body.blob for body in bodies if body.blob is not None}


StoreMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestModel = StoreMachine.TestCase
