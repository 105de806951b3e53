"""The journal of rows: what is read again after any end of its process, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from scheduler.errors import StoreError
from scheduler.store import journal
from scheduler.store.contract import Durability
from scheduler.store.journal import MAGIC, Journal, read
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
    return [row for segment in Journal(path).left() for row in read(segment)]


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
    (segment,) = Journal(path).left()
    os.truncate(segment, segment.stat().st_size - lost)
    assert kept(path) == [first]


@pytest.mark.parametrize("content", [b"", MAGIC[:3], MAGIC, MAGIC + b"\0" * 4096, MAGIC + b"\xff" * 100])
def test_a_segment_without_a_row(path: Path, content: bytes) -> None:
    path.with_name(path.name + "-rows-7").write_bytes(content)
    assert kept(path) == []


def test_damage_is_noticed(path: Path) -> None:
    Journal(path).append(rows(1)[0])
    (segment,) = Journal(path).left()
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
    assert [segment.name for segment in journal.left()] == ["tasks.db-rows-9", "tasks.db-rows-10"]
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
