"""Schema versions: stores of earlier programs are brought up to date, those of later ones are left alone."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scheduler.errors import IdempotencyConflict, StoreError, StoreTooNew
from scheduler.store.contract import Body, DeadLetters, Idempotency, Results, TaskFilter
from scheduler.store.schema import version_of
from scheduler.store.sql import schemas
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Reason, State
from tests.scheduler.store.record import BLOBS, RECORDED
from tests.scheduler.store.samples import HOUR_US, T0_US, a_task

BODY = Body(3, b"abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def recorded(version: int, path: Path) -> SqliteStore:
    """The store that a program of this schema left when it was killed (`tests.scheduler.store.record`)."""
    folder = RECORDED / f"schema_{version}"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((folder / "tasks.sql").read_text())
    shutil.copy(folder / "tasks.db-rows-0", path.parent)
    return SqliteStore(path, min_free_mib=0)


def shape(path: Path) -> dict[str, list[str | None]]:
    """The columns of each table and index, by name."""
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT type, name FROM sqlite_schema").fetchall()
        columns = {
            "table": "SELECT name FROM pragma_table_info(?)",
            "index": "SELECT name FROM pragma_index_info(?)",
        }
        return {
            name: [column for (column,) in connection.execute(columns[kind], (name,))] for kind, name in names
        }


async def test_a_store_whose_creation_was_cut_off_is_created(path: Path, tmp_path: Path) -> None:
    """SQLite's rollback journal is there, as in the moment before the database is a store."""
    (tmp_path / "earlier").mkdir()
    earlier = tmp_path / "earlier" / path.name
    with closing(sqlite3.connect(earlier, isolation_level=None)) as connection:
        connection.executescript(
            "CREATE TABLE t (data); INSERT INTO t VALUES (zeroblob(100000)); DROP TABLE t;"
        )
        # A change that does not fit into the cache reaches the database before it is committed.
        connection.executescript("PRAGMA cache_size = 1; BEGIN; CREATE TABLE u (data);")
        connection.execute("INSERT INTO u VALUES (zeroblob(50000))")
        for file in (tmp_path / "earlier").iterdir():
            shutil.copy(file, path.parent)
    assert path.with_name(f"{path.name}-journal").stat().st_size > 512
    store = SqliteStore(path, min_free_mib=0)
    await store.open()
    await store.add(a_task(), BODY, None)
    await store.close()


CALLBACK_BYTES = "SELECT coalesce(sum(length(record) + coalesce(length(facts), 0)), 0) FROM callbacks"
EARLIER = sorted(int(folder.name.removeprefix("schema_")) for folder in RECORDED.iterdir())


@pytest.mark.parametrize("version", EARLIER)
class TestAnEarlierProgramsStore:
    async def test_has_each_task_with_its_input_results_and_usage(self, path: Path, version: int) -> None:
        store = recorded(version, path)
        await store.open()
        assert [task.id async for task in store.unfinished()] == ["a-queued", "a-running"]
        assert await store.stdin("a-queued") == BODY
        assert await store.stdin("a-running") == Body(70_000, blob=BLOBS[0])
        succeeded = await store.get("a-succeeded")
        assert succeeded is not None
        assert (succeeded.state, succeeded.exit_code, succeeded.attempts) == (State.SUCCEEDED, 0, 1)
        assert (succeeded.cpu_us, succeeded.duration_us, succeeded.spec.args) == (700, 1000, ("-n", "ä"))
        assert await store.results("a-succeeded") == Results(
            Body(4, b"out\n"), Body(70_000, blob=BLOBS[2]), {"/tmp/page.pdf": Body(70_000, blob=BLOBS[3])}
        )
        given_up = await store.get("a-given-up")
        assert given_up is not None
        assert (given_up.state, given_up.reason, given_up.attempts) == (State.FAILED, Reason.PLATFORM, 3)
        # One of them was in the journal alone.
        for task_id in ("a-sync", "a-sync-journalled"):
            task = await store.get(task_id)
            assert task is not None
            assert task.cpu_us == 700
        assert await store.blobs_in_use() == {BLOBS[0], BLOBS[2], BLOBS[3]}
        await store.close()

    async def test_has_its_dead_letters(self, path: Path, version: int) -> None:
        store = recorded(version, path)
        await store.open()
        if version >= 2:
            assert await store.dead_letters() == DeadLetters(1, 5)
            assert [task.id for task in await store.page(TaskFilter("acme", dead=True))] == ["a-dead"]
            await store.replay("a-dead", a_task())
        assert await store.dead_letters() == DeadLetters(0, 0)
        await store.close()

    async def test_has_counted_the_bytes_that_its_account_keeps(self, path: Path, version: int) -> None:
        store = recorded(version, path)
        await store.open()
        ids = ["a-queued", "a-running", "a-succeeded", "a-given-up", "a-sync", "a-sync-journalled"]
        if version >= 2:
            ids.append("a-dead")
        if version >= 5:
            ids += ["a-calls", "a-called"]
        with closing(sqlite3.connect(path)) as reader:
            found = reader.execute(f"SELECT id, length(facts) FROM tasks WHERE id IN {tuple(ids)}").fetchall()
        assert {task_id for task_id, _ in found} == set(ids)
        rows = sum(size_bytes for _, size_bytes in found)
        # Two inputs, the results of one task, and from version 2 on a dead letter's input.
        bodies = 3 + 70_000 + (4 + 70_000 + 70_000) + (5 if version >= 2 else 0)
        with closing(sqlite3.connect(path)) as reader:
            (calls,) = reader.execute(CALLBACK_BYTES).fetchone()
        assert bool(calls) is (version >= 5)
        assert store.kept.of("acme") == store.kept.size_bytes == rows + bodies + calls
        await store.expire(T0_US + 2 * HOUR_US, 100)
        await store.close()
        await store.open()
        left = sum(size_bytes for task_id, size_bytes in found if task_id in ("a-queued", "a-running"))
        assert store.kept.of("acme") == left + 70_003 + calls
        await store.close()

    async def test_goes_on_to_work(self, path: Path, version: int) -> None:
        store = recorded(version, path)
        await store.open()
        with pytest.raises(IdempotencyConflict):
            await store.add(a_task(), BODY, Idempotency("key", b"another"))
        known = await store.add(a_task(), BODY, Idempotency("key", b"fingerprint"))
        assert known.id == "a-queued"
        known.begin_attempt(T0_US, cold_start=False)
        known.move(State.SUCCEEDED)
        await store.finish(known, Results(Body(1, b"x")))
        assert await store.results("a-queued") == Results(Body(1, b"x"))
        # The first blob was the input of a task that had ended.
        assert set(await store.expire(T0_US + HOUR_US, 100)) == set(BLOBS) - {BLOBS[0]}
        assert await store.get("a-succeeded") is None
        await store.close()

    async def test_has_the_shape_of_a_new_one(self, path: Path, version: int, tmp_path: Path) -> None:
        for store in (recorded(version, path), new := SqliteStore(tmp_path / "new.db", min_free_mib=0)):
            await store.open()
            await store.close()
        assert shape(path) == shape(new.path)

    async def test_is_said_in_the_log_to_be_brought_to_a_newer_schema(self, path: Path, version: int) -> None:
        store = recorded(version, path)
        with capture_logs() as logs:
            for _ in range(2):
                await store.open()
                await store.close()
        said = [line for line in logs if line["event"] == "store brought to a newer schema"]
        expected = [] if version == len(schemas()) else [(version, len(schemas()))]
        assert [(line["schema_before"], line["schema"]) for line in said] == expected


async def test_a_new_store_has_the_version_and_says_nothing(path: Path) -> None:
    store = SqliteStore(path, min_free_mib=0)
    with capture_logs() as logs:
        await store.open()
    with closing(sqlite3.connect(path)) as reader:
        assert version_of(reader) == len(schemas())
    assert logs == []
    await store.close()


async def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    """Also what its program left to be folded in when it was killed."""
    with closing(sqlite3.connect(path)) as newer:
        newer.executescript(f"PRAGMA journal_mode = WAL; PRAGMA user_version = {len(schemas()) + 1};")
        before = {file: (path.parent / file).read_bytes() for file in ("tasks.db", "tasks.db-wal")}
    for file, content in before.items():
        (path.parent / file).write_bytes(content)
    wanted = rf"schema {len(schemas()) + 1}.*up to {len(schemas())}: run the newer program"
    with pytest.raises(StoreTooNew, match=wanted):
        await SqliteStore(path).open()
    assert {file: (path.parent / file).read_bytes() for file in before} == before


async def test_a_step_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path, min_free_mib=0)
    await store.open()
    task = a_task()
    await store.add(task, BODY, None)
    await store.close()
    worse = [*schemas(), "CREATE TABLE more (x); CREATE TABLE tasks (x);"]
    with monkeypatch.context() as patch:
        patch.setattr("scheduler.store.schema.schemas", lambda: worse)
        with pytest.raises(StoreError, match="already exists"):
            await store.open()
    better = [*schemas(), "CREATE TABLE more (x);"]
    with monkeypatch.context() as patch:
        patch.setattr("scheduler.store.schema.schemas", lambda: better)
        await store.open()
        assert await store.get(task.id) == task
        await store.close()
    with pytest.raises(StoreTooNew):
        await store.open()


async def test_of_several_steps_those_before_a_failed_one_stand(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = recorded(1, path)
    steps = [*schemas(), "CREATE TABLE more (x);", "CREATE TABLE more (x);"]
    with monkeypatch.context() as patch:
        patch.setattr("scheduler.store.schema.schemas", lambda: steps)
        with pytest.raises(StoreError, match="already exists"):
            await store.open()
    with closing(sqlite3.connect(path)) as reader:
        assert version_of(reader) == len(steps) - 1
        assert reader.execute("SELECT count(*) FROM tasks").fetchone() == (5,)
