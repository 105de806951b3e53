"""The journal of rows: what is read again after any end of its process, and what is refused."""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import DiskFull, StoreError
from scheduler.store import commits, journal, transactions
from scheduler.store.contract import Body, Durability, Results
from scheduler.store.journal import MAGIC, Journal, read
from scheduler.store.kept import Kept
from scheduler.store.rows import Row, task_row
from scheduler.store.sqlite import SqliteStore
from tests.scheduler.store.samples import a_sync_task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def rows(count: int) -> list[Row]:
    return [task_row(a_sync_task(stderr_head=b"e" * number)) for number in range(count)]


def kept(path: Path) -> list[Row]:
    """What the next process would read."""
    return [row for segment in Journal(path).earlier_segments() for row in read(segment)]


def test_rows_are_kept_in_order_until_they_are_folded(path: Path) -> None:
    journal = Journal(path)
    first, second, third = rows(3)
    journal.append(first)
    journal.append(second)
    assert kept(path) == [first, second]
    batch = journal.take()
    assert batch is not None
    assert list(batch.rows.values()) == [first, second]
    journal.append(third)
    assert (journal.get(first[0]), journal.get(third[0]), journal.get("a-none")) == (first, third, None)
    assert kept(path) == [first, second, third]
    journal.folded()
    assert journal.get(first[0]) is None
    assert kept(path) == [third]
    assert journal.take() is not None
    journal.folded()
    assert (kept(path), list(path.parent.iterdir()), journal.take()) == ([], [], None)


def test_what_could_not_be_folded_comes_again_and_its_newest_row_counts(path: Path) -> None:
    journal = Journal(path)
    task = a_sync_task()
    old = task_row(task)
    task.stdout_bytes = 99
    new = task_row(task)
    (other,) = rows(1)
    journal.append(old)
    journal.append(other)
    journal.take()
    journal.append(new)
    assert journal.get(task.id) == new
    journal.put_back()
    batch = journal.take()
    assert batch is not None
    assert batch.rows == {task.id: new, other[0]: other}
    assert kept(path) == [old, other, new]
    journal.folded()
    assert kept(path) == []


@pytest.mark.parametrize("lost", [1, 4, 8, 9, 20])
def test_a_torn_end_costs_only_itself(path: Path, lost: int) -> None:
    journal = Journal(path)
    first, second = rows(2)
    journal.append(first)
    journal.append(second)
    (segment,) = Journal(path).earlier_segments()
    os.truncate(segment, segment.stat().st_size - lost)
    assert kept(path) == [first]


@pytest.mark.parametrize(
    "content",
    [b"", MAGIC[:3], MAGIC, MAGIC + b"\0" * 4096, MAGIC + b"\xff" * 100, bytes(600), bytes(512) + b"row"],
)
def test_a_segment_without_a_row(path: Path, content: bytes) -> None:
    path.with_name(path.name + "-rows-7").write_bytes(content)
    assert kept(path) == []


def test_damage_is_noticed(path: Path) -> None:
    Journal(path).append(rows(1)[0])
    (segment,) = Journal(path).earlier_segments()
    content = bytearray(segment.read_bytes())
    content[-3] ^= 1
    segment.write_bytes(content)
    assert kept(path) == []


def test_another_program_s_layout_is_left_alone(path: Path) -> None:
    segment = path.with_name(path.name + "-rows-0")
    segment.write_bytes(b"GC rows 2\nxxx")
    with pytest.raises(StoreError, match="rows-0"):
        kept(path)
    assert segment.exists()


def test_new_segments_follow_old_ones(path: Path) -> None:
    path.with_name(path.name + "-rows-9").write_bytes(MAGIC)
    path.with_name(path.name + "-rows-10").write_bytes(MAGIC)
    path.with_name(path.name + "-rows-x").write_bytes(b"not one of them")
    journal = Journal(path)
    assert [segment.name for segment in journal.earlier_segments()] == ["tasks.db-rows-9", "tasks.db-rows-10"]
    journal.append(rows(1)[0])
    assert path.with_name("tasks.db-rows-11").exists()


def test_half_a_write_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_by = Journal(path)
    first, second, third = rows(3)
    kept_by.append(first)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space") as caught:
        kept_by.append(second)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    kept_by.append(third)
    assert kept(path) == [first, third]
    assert kept_by.get(second[0]) is None


def test_it_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "UNFOLDED_BYTES_MAX", 2_000)
    full = Journal(path)
    taken = 0
    for row in rows(100):
        try:
            full.append(row)
        except StoreError as error:
            assert "journal is full" in str(error)  # noqa: PT017
            break
        taken += 1
    assert 1 <= taken < 20
    full.take()
    with pytest.raises(StoreError, match="journal is full"):
        full.append(rows(1)[0])
    full.folded()
    full.append(rows(1)[0])


async def test_a_store_reads_what_a_killed_process_left(path: Path) -> None:
    left = Journal(path)
    tasks = [a_sync_task() for _ in range(200)]
    for task in tasks:
        left.append(task_row(task))
    store = SqliteStore(path, min_free_mib=0)
    await store.open()
    for task in tasks:
        assert await store.get(task.id) == task
    assert not list(path.parent.glob("*-rows-*"))
    await store.update(a_sync_task(), Durability.PROCESS)
    await store.close()
    assert not list(path.parent.glob("*-rows-*"))


def test_a_row_that_cannot_be_read_is_told_by_its_segment(path: Path) -> None:
    payload = b"\x93\x01\x02\x03"
    record = struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    path.with_name(path.name + "-rows-0").write_bytes(MAGIC + record)
    with pytest.raises(StoreError, match="rows-0: a row cannot be read"):
        kept(path)


def test_a_segment_that_cannot_be_deleted_is_so_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = Journal(path)
    first, second, third = rows(3)
    for row in (first, second):
        stays.append(row)
        stays.take()
        stays.put_back()
    stays.take()
    monkeypatch.setattr(Path, "unlink", _refused)
    stays.folded()
    monkeypatch.undo()
    # Both: the older must not come again without the newer.
    assert kept(path) == [first, second]
    assert not stays
    stays.append(third)
    batch = stays.take()
    assert batch is not None
    assert batch.rows == {third[0]: third}
    stays.folded()
    assert list(path.parent.iterdir()) == []


def _refused(self: Path, missing_ok: bool = False) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted", str(self))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3)),
        st.tuples(st.just("fold"), st.booleans()),
        st.tuples(st.just("take"), st.none()),
        # The process ends: after the database has the batch or before, and so many segments were deleted.
        st.tuples(st.just("crash"), st.tuples(st.booleans(), st.integers(0, 3))),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(OPERATIONS)
def test_whenever_the_process_ends_the_newest_rows_are_there(operations: list[tuple[str, Any]]) -> None:
    """Against a model: the database is a dictionary, and what was appended last must be found in it at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.db"
        tasks = [a_sync_task() for _ in range(4)]
        database: dict[str, Row] = {}
        newest: dict[str, Row] = {}
        now = Journal(path)
        now.earlier_segments()
        taken: journal.Batch | None = None
        for what, how in operations:
            if what == "append":
                tasks[how].stdout_bytes += 1
                row = task_row(tasks[how])
                now.append(row)
                newest[row[0]] = row
            elif what == "take" and taken is None:
                taken = now.take()
            elif what == "fold" and taken is not None:
                if how:
                    database |= taken.rows
                    now.folded()
                else:
                    now.put_back()
                taken = None
            elif what == "crash":
                committed, deleted = how
                if taken is not None and committed:
                    database |= taken.rows
                    for segment in taken.segments[:deleted]:
                        segment.unlink()
            if what in ("crash", "close"):
                now.close()
                assert not now
                now = now if what == "close" else Journal(path)
                taken = None
                for segment in now.earlier_segments():
                    database |= {row[0]: row for row in read(segment)}
                    segment.unlink()
                assert database == newest
            for task_id, row in newest.items():
                assert (now.get(task_id) or database[task_id]) == row
        now.close()


def _refuses(error: str) -> Any:
    def refuse(connection: sqlite3.Connection, rows: Sequence[Row], kept: Kept) -> None:
        raise sqlite3.OperationalError(error)

    return refuse


async def test_a_row_never_comes_after_a_newer_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path, min_free_mib=0)
    await store.open()
    task = a_sync_task()
    await store.update(task, Durability.PROCESS)
    monkeypatch.setattr(commits, "save_rows", _refuses("disk I/O error"))
    task.stdout_bytes = 7
    with pytest.raises(StoreError, match=f"older row of task {task.id}"):
        await store.finish(task, Results(Body(2, b"ab")), Durability.PROCESS)
    with pytest.raises(StoreError, match=f"older row of task {task.id}"):
        await store.update(task, Durability.POWER)
    monkeypatch.undo()
    await store.finish(task, Results(Body(2, b"ab")), Durability.PROCESS)
    await store.close()
    await store.open()
    assert await store.get(task.id) == task
    await store.close()


async def test_closing_while_the_database_takes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path, min_free_mib=0)
    await store.open()
    tasks = [a_sync_task() for _ in range(3)]
    for task in tasks:
        await store.update(task, Durability.PROCESS)
    monkeypatch.setattr(commits, "save_rows", _refuses("database or disk is full"))
    await store.close()
    assert [row[0] for row in kept(path)] == [task.id for task in tasks]
    monkeypatch.undo()

    await store.open()
    assert kept(path) == []
    tasks[0].stdout_bytes = 9
    await store.finish(tasks[0], Results(Body(0, b"")))
    for task in tasks:
        assert await store.get(task.id) == task
    await store.update(a_sync_task(), Durability.PROCESS)
    await store.close()
    await store.open()
    # What the journal held in memory then did not come again.
    assert await store.get(tasks[0].id) == tasks[0]
    await store.close()


async def test_a_full_disk_is_told_as_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path, min_free_mib=0)
    await store.open()
    task = a_sync_task()
    await store.update(task, Durability.PROCESS)
    full = DiskFull("the disk is full")
    monkeypatch.setattr(transactions.Transactions, "_translate", lambda self, error: full)
    monkeypatch.setattr(commits, "save_rows", _refuses("disk I/O error"))
    with pytest.raises(DiskFull, match="older row"):
        await store.finish(task, Results(Body(0, b"")))
    monkeypatch.undo()
    await store.close()
    assert kept(path) == []
