"""Records a store as this program writes it: `python -m tests.scheduler.store.record` writes `recorded/schema_N/`.

Run it once when a schema is released, and never again for that schema: later programs must read what it wrote.
`tasks.sql` is the database, `tasks.db-rows-0` a row that only the journal had when the process was killed. A store of
batches, which schema 4 brought, is in `recorded_batches/schema_N/`. What is recorded already stays as it is.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from scheduler.batch import Batch, Format
from scheduler.callbacks.verdict import Answer, after_try
from scheduler.store.batch_contract import MadeTask
from scheduler.store.callbacks import SqliteCallbacks
from scheduler.store.contract import Body, Durability, Idempotency, Results
from scheduler.store.schema import version_of
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Reason, State, Task
from tests.scheduler.store.samples import HOUR_US, T0_US, a_sync_task, a_task

RECORDED: Final = Path(__file__).parent / "recorded"
RECORDED_BATCHES: Final = Path(__file__).parent / "recorded_batches"
BLOBS: Final = [f"{number:032x}" for number in range(4)]


async def record(folder: Path) -> Path:
    """Write the tasks to a store in `folder`; return the copy of its journal, taken before its rows were folded in."""
    store = SqliteStore(folder / "tasks.db", min_free_mib=0)
    await store.open()
    queued = a_task(id="a-queued", name="mine", stdin_bytes=3)
    await store.add(queued, Body(3, b"abc"), Idempotency("key", b"fingerprint"))
    running = a_task(id="a-running", stdin_bytes=70_000)
    await store.add(running, Body(70_000, blob=BLOBS[0]), None)
    running.begin_attempt(T0_US + 5, cold_start=True)
    await store.update(running, Durability.POWER)
    succeeded = a_task(id="a-succeeded", image="ocr:1", stdin_bytes=70_000)
    await store.add(succeeded, Body(70_000, blob=BLOBS[1]), None)
    succeeded.begin_attempt(T0_US + 5, cold_start=False)
    succeeded.move(State.SUCCEEDED)
    succeeded.exit_code, succeeded.cpu_us, succeeded.duration_us = 0, 700, 1000
    succeeded.ended_us, succeeded.expires_us = T0_US + 1005, T0_US + HOUR_US
    succeeded.files = {"/tmp/page.pdf": 70_000}
    results = Results(
        Body(4, b"out\n"), Body(70_000, blob=BLOBS[2]), {"/tmp/page.pdf": Body(70_000, blob=BLOBS[3])}
    )
    await store.finish(succeeded, results)
    given_up = a_task(id="a-given-up", stdin_bytes=3)
    await store.add(given_up, Body(3, b"abc"), None)
    for _ in range(3):
        given_up.begin_attempt(T0_US + 5, cold_start=False)
        given_up.requeue(T0_US + 6, "lost", attempt_counts=True)
    given_up.move(State.FAILED)
    given_up.reason, given_up.detail = Reason.PLATFORM, "the platform lost every attempt"
    given_up.ended_us, given_up.expires_us = T0_US + 1005, T0_US + HOUR_US
    await store.finish(given_up, Results())
    dead = a_task(id="a-dead", stdin_bytes=5)
    await store.add(dead, Body(5, b"hello"), None)
    dead.move(State.FAILED)
    dead.reason, dead.dead, dead.ended_us, dead.expires_us = Reason.PLATFORM, True, T0_US, T0_US + HOUR_US
    await store.finish(dead, Results())
    for name, url in (("a-calls", "https://example.com/hook"), ("a-called", "https://example.com/other")):
        calls = a_task(State.SUCCEEDED, id=name, callback_url=url)
        calls.ended_us, calls.expires_us = T0_US, T0_US + HOUR_US
        await store.finish(calls, Results())
    callbacks = SqliteCallbacks(store)
    found = await callbacks.due("a-called")
    assert found is not None
    await callbacks.save(after_try(found[0], Answer(204), T0_US))
    await store.update(a_sync_task(id="a-sync", stderr_head=b"\xff"), Durability.POWER)
    await store.update(a_sync_task(id="a-sync-journalled"), Durability.PROCESS)
    journal = folder / "copy"
    shutil.copy(folder / "tasks.db-rows-0", journal)
    await store.close()
    return journal


async def record_batches(folder: Path) -> None:
    """Write three batches to a store in `folder`: one in the middle, one that is run again, one that has succeeded."""
    store = SqliteStore(folder / "tasks.db", min_free_mib=0)
    await store.open()
    spec = a_task(name="pages").spec
    spool = Body(70_000, blob=BLOBS[0])
    batch = Batch("b-half", spec, Format.TAR, 3, spool, T0_US)
    await store.batches.add(batch, Idempotency("key", b"fingerprint"), 10)
    first, second = (a_task(id=f"b-half-{number}", batch=batch.id, stdin_bytes=3) for number in (1, 2))
    batch.made, batch.next_item = 2, 2048
    large = Body(70_000, blob=BLOBS[1])
    await store.batches.fill(batch, [MadeTask(first, Body(3, b"abc"), 0), MadeTask(second, large, 1024)])
    await store.finish(_ended(first, State.SUCCEEDED), Results(Body(4, b"out\n")))
    again = Batch("b-again", spec, Format.LINES, 2, Body(30, b'{"name":"x"}\n{"name":"y"}\n    '), T0_US + 1)
    await store.batches.add(again, None, 10)
    tasks = [a_task(id=f"b-again-{number}", batch=again.id) for number in (1, 2)]
    again.made, again.next_item = 2, 26
    await store.batches.fill(again, [MadeTask(task, Body(0), 13 * at) for at, task in enumerate(tasks)])
    await store.finish(_ended(tasks[0], State.FAILED), Results())
    await store.finish(_ended(tasks[1], State.SUCCEEDED), Results())
    again.round = 1
    await store.batches.save(again)
    over = Batch("b-over", spec, Format.LINES, 1, Body(3, b"{}\n"), T0_US + 2)
    await store.batches.add(over, None, 10)
    only = a_task(id="b-over-1", batch=over.id)
    over.made, over.next_item = 1, 3
    await store.batches.fill(over, [MadeTask(only, Body(0), 0)])
    await store.finish(_ended(only, State.SUCCEEDED), Results())
    over.spool, over.ended_us, over.expires_us = Body(3), T0_US + 9, T0_US + HOUR_US
    await store.batches.save(over)
    await store.close()


def _ended(task: Task, state: State) -> Task:
    task.begin_attempt(T0_US + 5, cold_start=False)
    task.move(state)
    task.exit_code, task.ended_us = int(state is State.FAILED), T0_US + 1005
    task.reason = Reason.EXIT if state is State.FAILED else None
    return task


def main() -> None:
    _main_batches()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = asyncio.run(record(folder))
        with closing(sqlite3.connect(folder / "tasks.db")) as connection:
            # What the copy of the journal has was not in the database when the copy was made.
            (size_bytes,) = connection.execute(
                "DELETE FROM tasks WHERE id = 'a-sync-journalled' RETURNING length(facts)"
            ).fetchone()
            connection.execute("UPDATE kept SET size_bytes = size_bytes - ?", (size_bytes,))
            connection.commit()
            version = version_of(connection)
            lines = [*connection.iterdump(), f"PRAGMA user_version = {version};"]
        target = RECORDED / f"schema_{version}"
        if target.exists():
            print(f"{target} is recorded already")
            return
        target.mkdir(parents=True)
        (target / "tasks.sql").write_text("\n".join(lines) + "\n")
        shutil.copy(journal, target / "tasks.db-rows-0")


def _main_batches() -> None:
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(record_batches(Path(name)))
        with closing(sqlite3.connect(Path(name) / "tasks.db")) as connection:
            version = version_of(connection)
            lines = [*connection.iterdump(), f"PRAGMA user_version = {version};"]
    target = RECORDED_BATCHES / f"schema_{version}"
    if target.exists():
        print(f"{target} is recorded already")
        return
    target.mkdir(parents=True)
    (target / "tasks.sql").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
