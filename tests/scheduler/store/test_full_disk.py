"""A disk that is really full: refused clearly, nothing acknowledged lost, and all goes on when there is room again."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.errors import DiskFull
from scheduler.store.blobs import CHUNK_BYTES, BlobStore
from scheduler.store.contract import Body, Durability, Results
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State, Task
from tests.scheduler.store.samples import a_sync_task, a_task

SIZE_MIB = 12
BODY = Body(20_000, bytes(20_000))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here (it needs root): {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True, timeout=10)


def fill(disk: Path, leave_bytes: int) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError:
            file.truncate(max(0, file.tell() - leave_bytes))
    return ballast


async def add_until_full(store: SqliteStore) -> list[Task]:
    """Adds, some at a time, until one is refused; returns those that were acknowledged."""
    kept: list[Task] = []
    while True:
        outcomes = await asyncio.gather(
            *(store.add(a_task(), BODY, None) for _ in range(8)), return_exceptions=True
        )
        kept += [task for task in outcomes if isinstance(task, Task)]
        refused = [outcome for outcome in outcomes if not isinstance(outcome, Task)]
        if refused:
            assert all(isinstance(error, DiskFull) for error in refused), refused
            return kept


@pytest.mark.parametrize("leave_bytes", [0, 100_000, 1_000_000])
async def test_refuses_keeps_and_recovers(small_disk: Path, leave_bytes: int) -> None:
    store = SqliteStore(small_disk / "tasks.db", min_free_mib=0)
    await store.open()
    kept = [await store.add(a_task(), BODY, None)]
    ballast = fill(small_disk, leave_bytes)
    kept += await add_until_full(store)
    kept += await add_until_full(store)
    for task in kept:
        assert await store.stdin(task.id) == BODY

    ballast.unlink()
    later = [await store.add(a_task(), BODY, None) for _ in range(10)]
    sync_task = a_sync_task()
    await store.update(sync_task, Durability.PROCESS)
    await store.close()

    await store.open()
    assert [task.id async for task in store.unfinished()] == [task.id for task in kept + later]
    assert await store.get(sync_task.id) == sync_task
    await store.close()


async def test_updates_say_so_too(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "tasks.db", min_free_mib=0)
    await store.open()
    ballast = fill(small_disk, 0)
    written: list[Task] = []

    async def write_until_refused() -> None:
        for _ in range(20_000):
            task = a_sync_task(stderr_head=bytes(4096))
            await store.update(task, Durability.PROCESS)
            written.append(task)

    with pytest.raises(DiskFull):
        await write_until_refused()
    ballast.unlink()
    await store.update(a_sync_task(), Durability.PROCESS)
    for task in written:
        assert await store.get(task.id) == task
    await store.close()


async def test_below_the_floor_new_tasks_are_refused_and_old_ones_end(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "tasks.db", min_free_mib=SIZE_MIB // 2)
    await store.open()
    task = a_task()
    await store.add(task, BODY, None)
    ballast = fill(small_disk, 3 * 1024 * 1024)
    with pytest.raises(DiskFull, match="6 MiB are free"):
        await store.add(a_task(), BODY, None)
    task.state = State.SUCCEEDED
    await store.finish(task, Results(BODY))
    await store.update(a_sync_task(), Durability.PROCESS)
    ballast.unlink()
    await store.add(a_task(), BODY, None)
    await store.close()


async def test_a_store_that_cannot_be_opened_for_want_of_room_can_be_later(small_disk: Path) -> None:
    ballast = fill(small_disk, 0)
    store = SqliteStore(small_disk / "tasks.db", min_free_mib=0)
    with pytest.raises(DiskFull):
        await store.open()
    ballast.unlink()
    await store.open()
    await store.add(a_task(), BODY, None)
    await store.close()


async def test_blobs(small_disk: Path) -> None:
    blobs = BlobStore(small_disk / "blobs", min_free_mib=0)
    body = blobs.body()

    async def write_too_much() -> None:
        for _ in range(2 * SIZE_MIB * 1024 * 1024 // CHUNK_BYTES):
            # Zeros would be kept as holes, which take no room.
            await body.write(b"x" * CHUNK_BYTES)

    with pytest.raises(DiskFull):
        await write_too_much()
    await body.abort()
    assert [path for path in blobs.directory.rglob("*") if path.is_file()] == []

    body = blobs.body()
    await body.write(bytes(CHUNK_BYTES))
    stored = await body.finish()
    assert blobs.path(stored.blob or "").stat().st_size == CHUNK_BYTES
    blobs.close()
