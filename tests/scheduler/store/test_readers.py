"""The reading threads: bounded, and read-only."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.errors import StoreError, Unavailable
from scheduler.store import readers as readers_module
from scheduler.store.readers import Readers, at_one_moment


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[Readers]:
    path = tmp_path / "tasks.db"
    readers = Readers(path, lambda: sqlite3.connect(path, check_same_thread=False))
    yield readers
    readers.close()


async def test_reads_beyond_the_bound_are_refused_and_those_before_end(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers_module, "_WAITING_MAX", 5)
    go_on = threading.Event()

    def slow(_: sqlite3.Connection) -> bool:
        return go_on.wait(60)

    reads = [asyncio.create_task(readers.read(slow)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="5 reads wait"):
        await readers.read(slow)
    go_on.set()
    assert await asyncio.gather(*reads) == [True] * 5
    assert await readers.read(lambda _: "again") == "again"


async def test_nothing_can_be_written(readers: Readers) -> None:
    with pytest.raises(StoreError, match="readonly"):
        await readers.read(lambda db: db.execute("CREATE TABLE t (x)"))
    # A read that failed does not count as one that waits.
    assert readers._waiting == 0


async def test_a_scan_goes_on_where_each_of_its_reads_ended(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers_module, "_SCAN_ROWS", 3)
    rows = "WITH t(id) AS (VALUES ('a'), ('b'), ('c'), ('d'), ('e'), ('f'), ('g')) "
    query = rows + "SELECT id FROM t WHERE id > :after ORDER BY id LIMIT :limit"
    monkeypatch.setattr(readers_module, "queries", lambda: {"all": query})
    found = ["".join(name for (name,) in some) async for some in readers.scan("all")]
    assert found == ["abc", "def", "g"]


async def test_a_scan_under_which_the_store_closes_is_told_so(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers_module, "_SCAN_ROWS", 1)
    monkeypatch.setattr(
        readers_module, "queries", lambda: {"all": "SELECT 'a' WHERE :after = '' LIMIT :limit"}
    )
    scan = readers.scan("all")
    assert await anext(scan) == [("a",)]
    await asyncio.to_thread(readers.close)
    with pytest.raises(StoreError, match="is closed"):
        await anext(scan)


async def test_statements_of_one_moment_do_not_see_a_change_in_between(
    tmp_path: Path, readers: Readers
) -> None:
    with sqlite3.connect(tmp_path / "tasks.db") as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE tasks (state)")
        writer.execute("INSERT INTO tasks VALUES ('queued')")

    def states(db: sqlite3.Connection) -> list[str]:
        """The states in which the task is found; it moves between the two looks."""
        look = "SELECT state FROM tasks WHERE state = ?"
        found = db.execute(look, ("running",)).fetchall()
        with sqlite3.connect(tmp_path / "tasks.db") as writer:
            writer.execute("UPDATE tasks SET state = 'running'")
        return [state for (state,) in found + db.execute(look, ("queued",)).fetchall()]

    assert await readers.read(at_one_moment(states)) == ["queued"]
    assert await readers.read(at_one_moment(states)) == ["running"]
