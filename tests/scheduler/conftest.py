"""A task manager with a real store and real blobs, over slots in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler.async_entry import AsyncEntry
from scheduler.clock import wall_us
from scheduler.errors import DiskFull, SchedulerError
from scheduler.live import LiveTask
from scheduler.manager import Manager
from scheduler.policy.limits import Limits
from scheduler.settings import ManagerSettings
from scheduler.store.blobs import BlobStore
from scheduler.store.contract import Body, Durability, Idempotency, Results
from scheduler.store.sqlite import SqliteStore
from scheduler.sync_side import SyncEntry
from scheduler.task import Kind, State, Task, TaskSpec
from tests.scheduler.fakes import CAT, FakeExecutor, FakeLauncher, FakeRun
from tests.scheduler.output_files import Folder

PATIENCE_S = 60.0


class TroubledStore(SqliteStore):
    """The real store, which refuses outcomes while `trouble` is set, and new tasks while it is `full`.

    A new task is not written, nor is its input there, before the future `adding` is done; its exception is raised.
    """

    trouble: SchedulerError | None = None
    refusals = 0
    full = False
    adding: asyncio.Future[None] | None = None

    async def add(self, task: Task, stdin: Body, idempotency: Idempotency | None) -> Task:
        if self.adding is not None:
            await self.adding
        return await super().add(task, stdin, idempotency)

    def _check_space(self) -> None:
        if self.full:
            raise DiskFull("the disk is full")
        super()._check_space()

    async def update(self, task: Task, durability: Durability) -> None:
        self._maybe()
        await super().update(task, durability)

    async def finish(self, task: Task, results: Results, durability: Durability = Durability.POWER) -> None:
        self._maybe()
        await super().finish(task, results, durability)

    def _maybe(self) -> None:
        if self.trouble is not None:
            self.refusals += 1
            raise self.trouble


class Ended:
    """Hears of every task that ended (`scheduler.observer.Observer`)."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def task_ended(self, task: Task) -> None:
        self.tasks.append(task)

    def slot_started(self, seconds: float) -> None:
        assert seconds >= 0


class Clock:
    """Seconds that pass only by `World.pass_time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """One set's task manager in one folder. `restart` opens it again, as a new process would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock: Callable[[], float] = time.monotonic
        self.now_us: Callable[[], int] = wall_us
        self.settings: dict[str, Any] = {
            "retry_backoff_s": 0.01,
            "full_disk_backoff_s": 0.01,
            "limits": Limits(start_backoff_s=0.01, patience_s=0.05),
        }
        self.open_managers: list[Manager] = []
        self.make()

    def make(self, **settings: Any) -> None:
        self.clock = settings.pop("clock", self.clock)
        self.now_us = settings.pop("now_us", self.now_us)
        self.settings |= settings
        self.store = TroubledStore(self.folder / "tasks.db", min_free_mib=0)
        self.blobs = BlobStore(self.folder / "blobs", min_free_mib=0)
        self.executor = FakeExecutor()
        self.launcher = FakeLauncher(self.executor)
        self.ended = Ended()
        self.manager = Manager(
            ManagerSettings("t", **self.settings),
            self.store,
            self.blobs,
            self.launcher.images,
            self.launcher,
            self.executor,
            self.ended,
            clock=self.clock,
            now_us=self.now_us,
        )

    async def open(self) -> World:
        await self.manager.open()
        self.open_managers.append(self.manager)
        return self

    async def close(self) -> None:
        if self.manager in self.open_managers:
            self.open_managers.remove(self.manager)
            await asyncio.wait_for(self.manager.close(), PATIENCE_S)

    async def restart(self, **settings: Any) -> None:
        await self.close()
        self.make(**settings)
        await self.open()

    # -- what a client does

    def spec(self, kind: Kind = Kind.SYNC, **facts: Any) -> TaskSpec:
        return TaskSpec(
            **({"account": "acme", "image": "cat:1", "image_digest": CAT.digest, "kind": kind} | facts)
        )

    async def run(
        self, stdin: bytes = b"hello", *, queue_timeout_s: float = 30, **facts: Any
    ) -> tuple[Task, bytes]:
        """A sync task as the API runs it, to its end."""
        live, head, ended = await self.manager.run(
            self.spec(**facts), CAT, stdin, queue_timeout_s=queue_timeout_s, head_bytes=65536
        )
        chunks = [head]
        try:
            if not ended:
                chunks += [chunk async for chunk in live.rest()]
        except asyncio.CancelledError:
            self.manager.abandon(live)
            raise
        return await self.manager.finish(live), b"".join(chunks)

    def begin(self, stdin: bytes = b"hello", **facts: Any) -> asyncio.Task[tuple[Task, bytes]]:
        """Like `run`, but without waiting for the end."""
        return asyncio.create_task(self.run(stdin, **facts))

    async def start(self, **facts: Any) -> LiveTask:
        """A sync task whose input is streamed."""
        return await self.manager.start(self.spec(**facts), CAT, None, queue_timeout_s=5)

    async def submit(
        self, stdin: bytes | Body = b"hello", idempotency: Idempotency | None = None, **facts: Any
    ) -> Task:
        body = Body(len(stdin), stdin) if isinstance(stdin, bytes) else stdin
        return await self.manager.submit(self.spec(Kind.ASYNC, **facts), CAT, body, idempotency)

    async def wait(self, task: Task) -> Task:
        ended = await self.manager.wait("acme", task.id, PATIENCE_S)
        assert ended.ended, ended
        return ended

    async def stdout(self, task: Task) -> bytes:
        results = await self.manager.results(task.id)
        assert results is not None
        body = results.stdout
        if body.inline is not None:
            return body.inline
        assert body.blob is not None
        return self.blobs.path(body.blob).read_bytes()

    # -- what a test waits for

    async def started(self, count: int = 1) -> FakeRun:
        """The last of `count` programs that were ever started."""
        await until(lambda: len(self.executor.runs) >= count)
        return self.executor.runs[count - 1]

    async def live(self) -> LiveTask:
        """The only task that is known, once it holds a slot."""
        (entry,) = self.manager._roster.entries.values()
        assert isinstance(entry, (SyncEntry, AsyncEntry))
        await until(lambda: entry.live is not None)
        assert entry.live is not None
        return entry.live

    async def settled(self) -> None:
        """Wait for the ends of sync tasks whose callers went away."""
        await until(lambda: not self.manager._sync._background._tasks)

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the task manager, whose timer goes off whenever it is due."""
        assert isinstance(self.clock, Clock)
        floor, until_s = self.manager._floor, self.clock.now + seconds
        while floor._timer_at <= until_s:
            self.clock.now = max(self.clock.now, floor._timer_at)
            assert floor._timer is not None
            floor._timer.cancel()
            floor._wake()
        self.clock.now = until_s

    def facts(self) -> dict[str, float]:
        return self.manager.facts()

    def assert_nothing_left(self) -> None:
        facts = self.facts()
        assert facts["tasks_known"] == facts["tasks_waiting"] == facts["slots_running"] == 0, facts


def blob_files(world: World) -> list[Path]:
    """The files of all bodies that the world keeps."""
    folder = world.folder / "blobs"
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


async def left(world: World, count: int, state: State = State.QUEUED, **facts: object) -> list[Task]:
    """Tasks as a killed set leaves them; the world is closed."""
    await world.close()
    await world.store.open()
    tasks = []
    for number in range(count):
        spec = world.spec(Kind.ASYNC, **facts)
        task = Task(world.manager.ids.new(), spec, wall_us(), stdin_bytes=5)
        data = b"%05d" % number
        await world.store.add(task, Body(5, data), None)
        if state is State.RUNNING:
            task.begin_attempt(task.created_us, cold_start=False)
            world.store.update_later(task)
        tasks.append(task)
    await world.store.close()
    return tasks


async def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Let everything else go on until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (whatever it is that must happen first)
            await asyncio.sleep(0.001)


async def until_state(world: World, task: Task, state: State) -> Task:
    async with asyncio.timeout(PATIENCE_S):
        while (now := await world.manager.get("acme", task.id)).state is not state:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return now


NewWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def new_world(tmp_path: Path) -> AsyncIterator[NewWorld]:
    """`await new_world(setting=value)` gives an open world; it is closed at the end. With `clock`, its time stands."""
    worlds: list[World] = []

    async def new(**settings: Any) -> World:
        world = World(tmp_path)
        worlds.append(world)
        world.make(**settings)
        return await world.open()

    yield new
    for world in worlds:
        await world.close()


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return await new_world()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The folder of a slot's output files."""
    path = tmp_path / "slot"
    path.mkdir()
    return Folder(path)
