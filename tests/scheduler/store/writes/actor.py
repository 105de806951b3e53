"""A process that does each kind of write to a store, and says before what it will do and afterwards what it did.

`python -m tests.scheduler.store.writes.actor FOLDER SEED TASKS OPEN`. It ends without closing the store. OPEN: tasks of
an earlier process that were not acknowledged, each with the size of its input, as JSON; they are submitted again under
their keys. A write that fails, because a sync does, is not acknowledged and not tried again. A line is a JSON array:
`will` or `did`, a task, its stage (`checker.Stage`), and what goes with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from scheduler.errors import SchedulerError
from scheduler.store import commits
from scheduler.store.blobs import BlobStore
from scheduler.store.contract import Body, Durability, Idempotency, Results
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Reason, State, TaskIds
from tests.scheduler.store.samples import T0_US, a_sync_task, a_task

SIZES_BYTES = (0, 100, 40_000)
"""Of inputs and results: in the row, and in a file of their own."""
CLIENTS = 4
OPENINGS = 20
"""How often a store is opened at most, where syncs fail."""


def body_of(text: str, size: int) -> bytes:
    """The content of a body: from its owner alone."""
    return random.Random(text).randbytes(size)


def say(*line: Any) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


class Actor:
    def __init__(self, folder: Path, seed: str) -> None:
        self._store = SqliteStore(folder / "tasks.db", min_free_mib=0)
        self._blobs = BlobStore(folder / "blobs", min_free_mib=0)
        self._dice = random.Random(seed)
        self._ids = TaskIds("a")

    async def act(self, tasks: int, left_open: dict[str, int]) -> None:
        # So that a short log has checkpoints in it, and blobs that meet in a new folder.
        commits.CHECKPOINT_FRAMES = 60  # type: ignore[misc]
        whole = secrets.token_hex
        dice = self._dice

        def few(nbytes: int | None = None) -> str:
            return f"{dice.randrange(4):02x}{whole(nbytes)[2:]}"

        secrets.token_hex = few
        for part in range(2):
            await self._opened()
            if part == 0:
                await asyncio.gather(*(self._tried(self._again(*each)) for each in left_open.items()))
            await asyncio.gather(*(self._client(tasks // CLIENTS // 2) for _ in range(CLIENTS)))
            if part == 0:
                await self._tried(self._store.close())

    async def _opened(self) -> None:
        for _ in range(OPENINGS - 1):
            if await self._tried(self._store.open()):
                return
        await self._store.open()

    async def _tried(self, act: Coroutine[Any, Any, None]) -> bool:
        try:
            await act
        except SchedulerError:
            return False
        return True

    async def _client(self, tasks: int) -> None:
        for _ in range(tasks):
            await self._tried(self._dice.choice([self._sync, self._ends, self._ends, self._dies])())

    async def _sync(self) -> None:
        task = a_sync_task(id=self._ids.new())
        say("will", task.id, "sync")
        await self._store.update(task, Durability.PROCESS)
        await asyncio.sleep(0)

    async def _added(self, *, keyed: bool = True) -> tuple[Any, int]:
        size = self._dice.choice(SIZES_BYTES)
        task = a_task(id=self._ids.new(), stdin_bytes=size)
        stdin = await self._body(task.id, size)
        say("will", task.id, "added", size, task.id, keyed)
        await self._store.add(task, stdin, Idempotency(task.id, b"one") if keyed else None)
        say("did", task.id, "added")
        return task, size

    async def _again(self, key: str, size: int) -> None:
        task = a_task(id=self._ids.new(), stdin_bytes=size)
        stdin = await self._body(key, size)
        say("will", task.id, "added", size, key, True)
        kept = await self._store.add(task, stdin, Idempotency(key, b"one"))
        say("did", kept.id, "added")

    async def _ends(self) -> None:
        # A key keeps its task from expiring.
        expires = self._dice.random() < 0.5
        task, _ = await self._added(keyed=not expires)
        task.move(State.RUNNING)
        self._store.update_later(task)
        await asyncio.sleep(0)
        stdin = await self._store.stdin(task.id)
        size = self._dice.choice(SIZES_BYTES)
        stdout = await self._body(f"{task.id} stdout", size)
        task.move(State.SUCCEEDED)
        task.expires_us = T0_US if expires else None
        say("will", task.id, "ended", size, expires)
        await self._store.finish(task, Results(stdout))
        say("did", task.id, "ended")
        if stdin is not None and stdin.blob is not None:
            await self._blobs.delete([stdin.blob])
        if expires:
            await self._blobs.delete(await self._store.expire(T0_US, 100))

    async def _dies(self) -> None:
        task, size = await self._added()
        task.move(State.FAILED)
        task.reason, task.dead = Reason.PLATFORM, True
        say("will", task.id, "dead")
        await self._store.finish(task, Results())
        say("did", task.id, "dead")
        if self._dice.random() < 0.5:
            new = a_task(id=self._ids.new(), replay_of=task.id, stdin_bytes=size)
            say("will", task.id, "replayed", new.id)
            await self._store.replay(task.id, new)
            say("did", task.id, "replayed", new.id)

    async def _body(self, text: str, size: int) -> Body:
        body = self._blobs.body()
        await body.write(body_of(text, size))
        return await body.finish()


if __name__ == "__main__":
    # Standard output is for what was acknowledged.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    place, seed, count, left_open = sys.argv[1:]
    asyncio.run(Actor(Path(place), seed).act(int(count), json.loads(left_open)))
    os._exit(0)
