"""A process that writes until it is killed, and says on stdout what was acknowledged: `python -m … DIRECTORY [dead]`.

With `dead` it writes dead letters and their replays, and nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

import uvloop

from scheduler.store.blobs import BlobStore
from scheduler.store.contract import Body, Durability, Idempotency, Results
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Reason, State, TaskIds
from tests.scheduler.store.samples import a_sync_task, a_task

IDS = TaskIds("a")


def say(what: str, task_id: str, blob: str = "-") -> None:
    os.write(1, f"{what} {task_id} {blob}\n".encode())


async def sync_tasks(store: SqliteStore) -> None:
    while True:
        task = a_sync_task(id=IDS.new())
        await store.update(task, Durability.PROCESS)
        say("updated", task.id)
        # Such an update does not always let others run.
        await asyncio.sleep(0)


async def async_tasks(store: SqliteStore) -> None:
    while True:
        task = a_task(id=IDS.new())
        await store.add(task, Body(3, b"abc"), Idempotency(task.id, b"one"))
        say("added", task.id)
        task.move(State.RUNNING)
        store.update_later(task)
        await asyncio.sleep(0.001)
        task.move(State.SUCCEEDED)
        await store.finish(task, Results(Body(3, task.id[-3:].encode())))
        say("finished", task.id)


async def large_tasks(store: SqliteStore, blobs: BlobStore) -> None:
    while True:
        task = a_task(id=IDS.new())
        body = blobs.body()
        for _ in range(40):
            await body.write(task.id.encode() * 500)
        stdin = await body.finish()
        await store.add(task, stdin, None)
        say("added", task.id, stdin.blob or "")


async def dead_letters(store: SqliteStore, blobs: BlobStore) -> None:
    """Each second one has a blob; each third one is not replayed."""
    for number in itertools.count():
        task = a_task(id=IDS.new(), stdin_bytes=3)
        stdin = Body(3, b"abc")
        if number % 2:
            body = blobs.body()
            await body.write(task.id.encode() * 5_000)
            stdin = await body.finish()
        await store.add(task, stdin, None)
        task.move(State.FAILED)
        task.reason, task.dead = Reason.PLATFORM, True
        await store.finish(task, Results())
        say("dead", task.id, stdin.blob or "-")
        if number % 3:
            new = a_task(id=IDS.new(), replay_of=task.id)
            await store.replay(task.id, new)
            say("replayed", task.id, new.id)


async def main(directory: Path, *, dead: bool) -> None:
    store = SqliteStore(directory / "tasks.db", min_free_mib=0)
    blobs = BlobStore(directory / "blobs", min_free_mib=0)
    await store.open()
    say("opened", "-")
    if dead:
        await asyncio.gather(*(dead_letters(store, blobs) for _ in range(4)))
    await asyncio.gather(
        *(sync_tasks(store) for _ in range(4)),
        *(async_tasks(store) for _ in range(4)),
        *(large_tasks(store, blobs) for _ in range(2)),
    )


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), dead="dead" in sys.argv[2:]))
