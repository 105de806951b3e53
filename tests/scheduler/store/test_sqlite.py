"""What is SQLite's own: syncs, query plans, bounds, and recovery from failed syncs."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.errors import StoreError, Unavailable
from scheduler.store import commits, transactions
from scheduler.store.contract import Body, Durability, TaskFilter
from scheduler.store.sql import queries
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State, Task
from tests.scheduler.store.samples import a_sync_task, a_task

ROOT = Path(__file__).parents[3]
BODY = Body(3, b"abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, min_free_mib=0)
    await store.open()
    yield store
    await store.close()


class TestOpening:
    async def test_says_what_is_no_store(self, path: Path) -> None:
        path.write_bytes(b"a photograph" * 1000)
        with pytest.raises(StoreError, match="not a database"):
            await SqliteStore(path).open()

    async def test_two_stores_never_share_a_file(self, store: SqliteStore, path: Path) -> None:
        with pytest.raises(StoreError, match="in use by process"):
            await SqliteStore(path).open()
        await store.update(a_task(), Durability.POWER)

    async def test_files_are_for_nobody_else_s_eyes(self, store: SqliteStore, path: Path) -> None:
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == dict.fromkeys(("tasks.db", "tasks.db-wal", "tasks.db-shm", "tasks.db.lock"), 0o600)


SYNCS = """
import asyncio, os, sys
from pathlib import Path
from scheduler.store import commits
from scheduler.store.contract import Body, Durability
from scheduler.store.sqlite import SqliteStore
from tests.scheduler.store.samples import a_sync_task, a_task

async def main():
    store = SqliteStore(Path(sys.argv[1]), min_free_mib=0)
    await store.open()
    # The first commit starts a log, which syncs its header.
    await store.add(a_task(), Body(3, b"abc"), None)
    os.write(1, b"mark\\n")
    for _ in range(100):
        await store.update(a_sync_task(), Durability.PROCESS)
    os.write(1, b"mark without\\n")
    for _ in range(20):
        await store.add(a_task(), Body(3, b"abc"), None)
    os.write(1, b"mark one each\\n")
    for _ in range(100):
        await store.update(a_sync_task(), Durability.PROCESS)
    os.write(1, b"mark without\\n")
    await asyncio.gather(*(store.add(a_task(), Body(3, b"abc"), None) for _ in range(50)))
    os.write(1, b"mark shared\\n")
    commits.CHECKPOINT_FRAMES = 50
    commits.JOURNAL_S = 0.01
    for _ in range(300):
        await store.update(a_sync_task(), Durability.PROCESS)
        await asyncio.sleep(0.001)
    os.write(1, b"mark checkpoints\\n")
    await store.close()

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_syncs_where_power_counts_and_only_there(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync,write", "-o", str(trace)]
    child = [sys.executable, "-c", SYNCS, str(tmp_path / "store" / "tasks.db")]
    done = subprocess.run(
        [*strace, *child], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    syncs: list[tuple[str, int]] = []
    count = 0
    loop_thread, syncing_threads = "", set()
    for line in trace.read_text().splitlines():
        if mark := re.search(r'"mark ?(.*?)\\n"', line):
            syncs.append((mark[1], count))
            count = 0
            loop_thread = line.split()[0]
        elif re.search(r"\bf(data)?sync\(", line):
            count += 1
            syncing_threads.add(line.split()[0])
    assert [label for label, _ in syncs] == ["", "without", "one each", "without", "shared", "checkpoints"]
    assert loop_thread not in syncing_threads
    assert syncs[5][1] > 0
    assert [count for _, count in syncs][1:4] == [0, 20, 0]
    assert 1 <= syncs[4][1] <= 3


class TestRowsOfSyncTasks:
    """They come into the database without a sync, and the log is synced by itself soon after."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commits, "JOURNAL_S", 0.01)
        monkeypatch.setattr(commits, "SYNC_S", 0.01)

    async def test_are_synced_by_themselves(
        self, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[tuple[str, bool]] = []
        task = a_sync_task()

        def sync(file: Path) -> None:
            with sqlite3.connect(path) as other:
                held = other.execute("SELECT 1 FROM tasks WHERE id = ?", (task.id,)).fetchone()
            synced.append((file.name, held is not None))

        monkeypatch.setattr(transactions, "sync_file", sync)
        await store.update(task, Durability.PROCESS)
        async with asyncio.timeout(60):
            while not synced:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert synced[0] == ("tasks.db-wal", True)

    async def test_whose_sync_fails_are_written_again_with_the_log_by_the_next_commit(
        self, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed = asyncio.Event()
        written: list[Path] = []
        loop = asyncio.get_running_loop()

        def fail(file: Path) -> None:
            loop.call_soon_threadsafe(failed.set)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(transactions, "sync_file", fail)
        monkeypatch.setattr(transactions, "write_again", written.append)
        task = a_sync_task()
        await store.update(task, Durability.PROCESS)
        await asyncio.wait_for(failed.wait(), 60)
        while not written:
            await store.add(a_task(), BODY, None)
        assert written == [path.with_name("tasks.db-wal")]


class TestPlans:
    VALUES = {  # noqa: RUF012
        "account": "a", "state": "failed", "image": "i", "name": "n", "before": "z", "limit": 9, "id": "a-1",
        "now_us": 1, "made_before_us": 1, "task": 1, "key": "k", "fingerprint": b"", "task_id": "a-1", "created_us": 1,
        "body": b"", "after": "", "size_bytes": 0, "tasks": 1, "new": 2, "inline": None, "blob": None,
        "row": 1, "batch": 1, "round": 1, "is_open": 1, "expires_us": 1, "facts": b"", "record": b"",
        "most": 9,
    }  # fmt: skip

    # `kept_sums` reads one row for each account, once, when the store is opened.
    # An account has few batches, which are sorted as they are read.
    @pytest.mark.parametrize(
        "name", sorted(set(queries()) - {"count_checkpoint", "kept_sums", "page_of_batches"})
    )
    async def test_no_query_reads_a_whole_table_or_sorts(
        self, store: SqliteStore, path: Path, name: str
    ) -> None:
        """So a million ended tasks slow nothing."""
        query = queries()[name]
        values: Any = self.VALUES if ":" in query else [None] * query.count("?")
        with sqlite3.connect(path) as reader:
            plan = [row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {query}", values)]
        reader.close()
        assert not [
            step for step in plan if re.match(r"SCAN (?!\w+ VIRTUAL|CONSTANT ROW)|USE TEMP B-TREE", step)
        ], plan

    async def test_of_unfinished_uses_the_small_index(self, store: SqliteStore, path: Path) -> None:
        with sqlite3.connect(path) as reader:
            plan = [
                row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {queries()['unfinished']}", self.VALUES)
            ]
        reader.close()
        assert plan == ["SEARCH tasks USING INDEX tasks_unfinished (id>?)"]


class TestBounds:
    async def test_too_many_waiting_adds_are_refused_and_ends_are_not(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commits, "QUEUED_WRITES_MAX", 10)
        adds = [store.add(a_task(), BODY, None) for _ in range(30)]
        updates = [store.update(a_sync_task(), Durability.POWER) for _ in range(30)]
        outcomes = await asyncio.gather(*adds, *updates, return_exceptions=True)
        assert sum(isinstance(outcome, Task) for outcome in outcomes) >= 10
        refused = [outcome for outcome in outcomes[:30] if not isinstance(outcome, Task)]
        assert refused
        assert all(isinstance(error, Unavailable) for error in refused)
        assert outcomes[30:] == [None] * 30
        await store.add(a_task(), BODY, None)

    async def test_a_page_waits_for_rows_that_the_writer_has_not_written_yet(
        self, store: SqliteStore
    ) -> None:
        task = a_task()
        await store.add(task, BODY, None)
        begun, released = threading.Event(), threading.Event()

        def block(connection: sqlite3.Connection) -> None:
            begun.set()
            released.wait()

        blocked = asyncio.ensure_future(store.write(block, Durability.PROCESS))
        await asyncio.to_thread(begun.wait)
        task.move(State.RUNNING)
        store.update_later(task)
        page = asyncio.ensure_future(store.page(TaskFilter("acme", state=State.RUNNING)))
        # The first one hands the row to the writer, so the second finds none that waits.
        second = asyncio.ensure_future(store.page(TaskFilter("acme", state=State.RUNNING)))
        try:
            for _ in range(20):
                await store.get(task.id)
            assert not page.done()
            assert not second.done()
        finally:
            released.set()
        assert [await page, await second] == [[task], [task]]
        await blocked

    async def test_inline_bodies_are_small(self, store: SqliteStore) -> None:
        with pytest.raises(ValueError, match="inline"):
            await store.add(a_task(), Body(100_000, bytes(100_000)), None)

    async def test_the_log_is_folded_in_and_starts_anew(
        self, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commits, "CHECKPOINT_FRAMES", 50)
        for _ in range(300):
            await store.update(a_sync_task(stderr_head=bytes(4096)), Durability.PROCESS)
            await asyncio.sleep(0.001)
        log_bytes = path.with_name("tasks.db-wal").stat().st_size
        assert log_bytes < 300 * 4096
        assert path.stat().st_size > 150 * 4096


class FlakyConnection(sqlite3.Connection):
    """A connection on which some statements fail, as on a failing disk."""

    fail: dict[str, str] = {}  # noqa: RUF012

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        for beginning, name in self.fail.items():
            if sql.startswith(beginning):
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorname = name
                raise error
        return super().execute(sql, *arguments)


ATTEMPTS = 2
"""A write that fails with others is tried alone."""


class TestFailingDisk:
    @pytest.fixture
    def flaky(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.setattr(FlakyConnection, "fail", {})
        connect = sqlite3.connect
        monkeypatch.setattr(
            "scheduler.store.sqlite.sqlite3.connect",
            lambda *a, **k: connect(*a, factory=FlakyConnection, **k),
        )
        return FlakyConnection.fail

    async def test_an_error_reaches_every_caller_and_passes(
        self, flaky: dict[str, str], store: SqliteStore
    ) -> None:
        flaky["COMMIT"] = flaky["INSERT"] = "SQLITE_IOERR_WRITE"
        writes = [store.add(a_task(), BODY, None) for _ in range(5)]
        outcomes = await asyncio.gather(
            *writes, store.update(a_sync_task(), Durability.POWER), return_exceptions=True
        )
        assert all(isinstance(outcome, StoreError) for outcome in outcomes)
        flaky.clear()
        task = a_task()
        await store.add(task, BODY, None)
        assert [task.id async for task in store.unfinished()] == [task.id]

    async def test_after_a_failed_sync_nothing_is_acknowledged_until_the_log_was_written_again(
        self, flaky: dict[str, str], store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[Path] = []

        def write_again(path: Path) -> None:
            written.append(path)
            if len(written) <= 2 * ATTEMPTS:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        flaky["COMMIT"] = "SQLITE_IOERR_FSYNC"
        with pytest.raises(StoreError, match="SQLITE_IOERR_FSYNC") as unsure:
            await store.add(a_task(), BODY, None)
        assert unsure.value.executed, "it may be there after a crash: nobody does it elsewhere as well"
        flaky.clear()
        monkeypatch.setattr("scheduler.store.transactions.write_again", write_again)
        for _ in range(2):
            with pytest.raises(StoreError, match="Input/output error") as refused:
                await store.update(a_sync_task(), Durability.POWER)
            assert not refused.value.executed
        await store.update(a_sync_task(), Durability.POWER)
        assert set(written) == {store.path.with_name("tasks.db-wal")}
        count = len(written)
        await store.update(a_sync_task(), Durability.POWER)
        assert len(written) == count, "once is enough"
        assert len(await store.page(TaskFilter("acme", state=State.SUCCEEDED))) == 2

    async def test_rows_wait_in_the_journal_while_the_database_takes_none(
        self, flaky: dict[str, str], store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commits, "JOURNAL_S", 0.01)
        monkeypatch.setattr(commits, "JOURNAL_AGAIN_S", 0.01)
        flaky["INSERT"] = "SQLITE_IOERR_WRITE"
        first, second = a_sync_task(), a_sync_task()
        await store.update(first, Durability.PROCESS)
        # A listing tells what the database has, and does not fail.
        assert await store.page(TaskFilter("acme")) == []
        first.stdout_bytes = 99
        await store.update(first, Durability.PROCESS)
        await store.update(second, Durability.PROCESS)
        assert await store.get(first.id) == first
        flaky.clear()
        assert {task.id: task for task in await store.page(TaskFilter("acme"))} == {
            first.id: first,
            second.id: second,
        }
        assert not list(path.parent.glob("*-rows-*"))
