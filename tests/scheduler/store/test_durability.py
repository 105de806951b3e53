"""What was acknowledged is there after `kill -9`, at whatever moment it came."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from scheduler.errors import StoreError
from scheduler.store.blobs import BlobStore
from scheduler.store.contract import Body, DeadLetters, Idempotency, TaskFilter
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State
from tests.scheduler.store.samples import a_task

ROOT = Path(__file__).parents[3]
ROUNDS = 6


async def acknowledged_before_a_kill(
    directory: Path, after_lines: int, *mode: str
) -> list[tuple[str, str, str]]:
    """Run the victim until it said so many lines, kill it, return all it said."""
    command = (sys.executable, "-m", "tests.scheduler.store.victim", str(directory), *mode)
    victim = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert victim.stdout is not None
    said = [await victim.stdout.readline() for _ in range(after_lines)]
    victim.kill()
    said += (await victim.stdout.read()).splitlines(keepends=True)
    assert await victim.wait() == -9
    lines = [line.decode().split() for line in said if line.endswith(b"\n")]
    return [(what, task_id, blob) for what, task_id, blob in lines if what != "opened"]


async def test_every_acknowledged_row_and_blob_survives_kill_9(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    said: list[tuple[str, str, str]] = []
    for _ in range(ROUNDS):
        said += await acknowledged_before_a_kill(tmp_path, moments.randrange(2, 2_500))
    finished = {task_id for what, task_id, _ in said if what == "finished"}

    store = SqliteStore(tmp_path / "tasks.db", min_free_mib=0)
    blobs = BlobStore(tmp_path / "blobs", min_free_mib=0)
    await store.open()
    for what, task_id, blob in said:
        task = await store.get(task_id)
        assert task is not None, f"{task_id} was {what} and is lost"
        if what == "updated":
            assert task.cpu_us == 700
        elif task_id in finished:
            assert task.state is State.SUCCEEDED
            results = await store.results(task_id)
            assert results is not None
            assert results.stdout == Body(3, task_id[-3:].encode())
        elif blob != "-":
            stdin = await store.stdin(task_id)
            assert stdin == Body(40 * 500 * len(task_id), blob=blob)
            kept = blobs.open_read(blob)
            assert b"".join([piece async for piece in kept.pieces()]) == task_id.encode() * 500 * 40
            kept.close()
        else:
            # Its end may have been written without the victim's having been able to say so.
            assert await store.stdin(task_id) == Body(3, b"abc") or task.state is State.SUCCEEDED
            assert await store.add(a_task(), Body(0, b""), Idempotency(task_id, b"one")) == task
    assert {"updated", "added", "finished"} == {what for what, _, _ in said}

    in_use = await store.blobs_in_use()
    await blobs.sweep(in_use, older_than_s=-1)
    left = {path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file()}
    assert left == in_use
    blobs.close()
    await store.close()


async def test_dead_letters_and_replays_survive_kill_9_each_with_its_input(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    said: list[tuple[str, str, str]] = []
    for _ in range(3):
        said += await acknowledged_before_a_kill(tmp_path, moments.randrange(15, 150), "dead")
    assert {what for what, _, _ in said} == {"dead", "replayed"}

    store = SqliteStore(tmp_path / "tasks.db", min_free_mib=0)
    blobs = BlobStore(tmp_path / "blobs", min_free_mib=0)
    await store.open()
    inputs = {task_id: blob for what, task_id, blob in said if what == "dead"}
    replays = {task_id: new_id for what, task_id, new_id in said if what == "replayed"}
    for task_id, blob in inputs.items():
        task = await store.get(task_id)
        assert task is not None
        # Its replay may have been written without the victim's having been able to say so.
        assert replays.get(task_id, task.replayed_as) == task.replayed_as
        assert task.dead == (task.replayed_as is None)
        owner = await store.get(task.replayed_as or task_id)
        assert owner is not None
        assert owner.state is (State.FAILED if task.dead else State.QUEUED)
        assert (await store.stdin(task_id) is None) == (not task.dead)
        stdin = await store.stdin(owner.id)
        if blob == "-":
            assert stdin == Body(3, b"abc")
        else:
            assert stdin == Body(5_000 * len(task_id), blob=blob)
            assert blobs.path(blob).read_bytes() == task_id.encode() * 5_000
    # The books agree: what is counted is what is there.
    dead = await store.page(TaskFilter("acme", dead=True, limit=1_000))
    sizes = [stdin.size_bytes for task in dead if (stdin := await store.stdin(task.id)) is not None]
    assert await store.dead_letters() == DeadLetters(len(dead), sum(sizes))
    blobs.close()
    await store.close()


async def test_a_store_is_one_process_s(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.scheduler.store.victim", str(tmp_path))
    owner = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    await owner.stdout.readline()
    store = SqliteStore(tmp_path / "tasks.db")
    with pytest.raises(StoreError, match=rf"in use by process {owner.pid} .*tasks\.db\.lock"):
        await store.open()
    owner.kill()
    await owner.wait()
    await store.open()
    await store.close()
