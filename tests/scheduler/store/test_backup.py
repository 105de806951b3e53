"""A backup of a store that is written to meanwhile: whole, of one moment, and brought up to date in place."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from scheduler.errors import DiskFull, StoreError, StoreTooNew
from scheduler.lock import FolderLock
from scheduler.store import backup
from scheduler.store.backup import back_up
from scheduler.store.blobs import BlobStore
from scheduler.store.contract import Body, Results
from scheduler.store.sql import schemas
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State, Task
from tests.scheduler.store.samples import a_task

LARGE = b"x" * 300_000


class Place:
    """The folder of a set that runs, and the folder of its backup."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.target = folder / "backup"
        self.store = SqliteStore(self.state / "tasks.db", min_free_mib=0)
        self.blobs = BlobStore(self.state / "blobs", min_free_mib=0)

    async def close(self) -> None:
        await self.store.close()
        self.blobs.close()

    async def blob(self, data: bytes = LARGE) -> Body:
        writer = self.blobs.body()
        await writer.write(data)
        return await writer.finish()

    async def add(self, task_id: str) -> tuple[Task, Body]:
        task, stdin = a_task(id=task_id), await self.blob()
        await self.store.add(task, stdin, None)
        return task, stdin

    async def end(self, task: Task, stdin: Body) -> Body:
        """The task succeeds: its input goes, its result comes."""
        results = Results(await self.blob(b"r" * 200_000), Body(0, b""))
        ended = a_task(State.SUCCEEDED, id=task.id)
        await self.store.finish(ended, results)
        assert stdin.blob is not None
        await self.blobs.delete([stdin.blob])
        return results.stdout

    def back_up(self) -> backup.Backup:
        return back_up(self.store.path, self.blobs.directory, self.target)

    def restored(self, folder: Path) -> Place:
        """A set on a copy of the backup, as the runbook restores it."""
        shutil.copytree(self.target, folder / "state")
        return Place(folder)

    def bodies(self) -> set[str]:
        return {path.name for path in (self.target / "blobs").glob("*/*")}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path / "set")
    await place.store.open()
    yield place
    await place.close()


async def test_a_backup_opens_as_the_store_that_it_was(place: Place, tmp_path: Path) -> None:
    waits, its_input = await place.add("a-waits")
    ends, gone = await place.add("a-ends")
    result = await place.end(ends, gone)
    made = place.back_up()
    assert (made.bodies, made.copied, made.copied_bytes) == (2, 2, 500_000)
    after, _ = await place.add("a-after")
    copy = place.restored(tmp_path / "copy")
    await copy.store.open()
    assert [task.id async for task in copy.store.unfinished()] == [waits.id]
    stdin, results = await copy.store.stdin(waits.id), await copy.store.results(ends.id)
    assert stdin is not None
    assert stdin.blob == its_input.blob
    assert results is not None
    assert results.stdout.blob == result.blob
    for body, data in ((stdin, LARGE), (results.stdout, b"r" * 200_000)):
        assert body.blob is not None
        assert copy.blobs.path(body.blob).read_bytes() == data
    assert await copy.store.get(after.id) is None
    await copy.close()
    modes = {path.stat().st_mode & 0o777 for path in place.target.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {path.name for path in place.target.iterdir()} == {"tasks.db", "blobs"}


async def test_a_second_backup_copies_what_is_new_and_drops_what_is_gone(place: Place) -> None:
    first, its_input = await place.add("a-first")
    place.back_up()
    await place.end(first, its_input)
    _, second = await place.add("a-second")
    made = place.back_up()
    assert (made.bodies, made.copied) == (2, 2)
    assert its_input.blob not in place.bodies()
    assert second.blob in place.bodies()
    assert place.back_up().copied == 0


async def test_a_body_that_is_deleted_before_it_is_copied_has_the_database_copied_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, its_input = await place.add("a-ends")
    copied = backup._copy_body
    databases: list[Path] = []

    def late(source: Path, to: Path) -> int | None:
        if source.name == its_input.blob and len(databases) == 1:
            # The task ended after the database was copied.
            with closing(sqlite3.connect(place.store.path)) as connection, connection:
                connection.execute("UPDATE blobs SET task = 0 WHERE name = ?", (its_input.blob,))
            source.unlink()
        return copied(source, to)

    def database(store: Path, to: Path) -> set[str]:
        databases.append(store)
        return copy_database(store, to)

    copy_database = backup._copy_database
    monkeypatch.setattr(backup, "_copy_body", late)
    monkeypatch.setattr(backup, "_copy_database", database)
    made = place.back_up()
    assert (len(databases), made.bodies) == (2, 0)


async def test_bodies_that_are_never_there_in_time_are_told_and_the_last_backup_stays(place: Place) -> None:
    await place.add("a-first")
    place.back_up()
    kept = (place.target / "tasks.db").read_bytes()
    _, its_input = await place.add("a-second")
    assert its_input.blob is not None
    place.blobs.path(its_input.blob).unlink()
    with pytest.raises(StoreError, match="deleted faster than they could be copied"):
        place.back_up()
    assert (place.target / "tasks.db").read_bytes() == kept


async def test_a_hole_of_a_body_takes_no_disk_in_the_backup_either(place: Place) -> None:
    _, its_input = await place.add("a-holes")
    assert its_input.blob is not None
    path = place.blobs.path(its_input.blob)
    os.truncate(path, 1 << 30)
    place.back_up()
    copy = next((place.target / "blobs").glob(f"*/{its_input.blob}")).stat()
    assert copy.st_size == 1 << 30
    assert copy.st_blocks * 512 < 1 << 20


async def test_a_backup_goes_on_in_the_folder_of_one_that_was_killed(place: Place) -> None:
    waits, _ = await place.add("a-waits")
    place.back_up()
    # While it copies, SQLite's journal of the copy is beside it; then, for a moment, a log and its index.
    for name in (".tasks.db", ".tasks.db-journal", ".tasks.db-wal", ".tasks.db-shm"):
        (place.target / name).write_bytes(b"half")
    assert place.back_up().bodies == 1
    assert {path.name for path in place.target.iterdir()} == {"tasks.db", "blobs"}
    with closing(sqlite3.connect(place.target / "tasks.db")) as copy:
        assert copy.execute("SELECT id FROM tasks").fetchall() == [(waits.id,)]


async def test_one_backup_at_a_time_is_made_in_a_folder(place: Place) -> None:
    await place.add("a-waits")
    place.target.mkdir()
    other = FolderLock(place.target)
    other.take()
    with pytest.raises(StoreError, match=f"another backup into {place.target} is being made"):
        place.back_up()
    assert list(place.target.iterdir()) == []
    other.release()
    assert place.back_up().bodies == 1


async def test_the_disk_that_is_full_is_that_of_the_backup(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: Path, to: Path) -> set[str]:
        with closing(sqlite3.connect(to)) as copy:
            copy.execute("PRAGMA max_page_count = 1")
            copy.execute("CREATE TABLE large AS SELECT zeroblob(100000)")
        raise AssertionError("there was room")

    monkeypatch.setattr(backup, "_copy_database", full)
    with pytest.raises(DiskFull, match=f"the disk of the store {place.target}/tasks.db is full"):
        place.back_up()


async def test_a_folder_that_is_no_place_for_a_backup_is_refused(place: Place, tmp_path: Path) -> None:
    for folder in (place.state, place.state / "backup"):
        with pytest.raises(StoreError, match="in the set's own state_dir"):
            back_up(place.store.path, place.blobs.directory, folder)
    (place.target / "photos").mkdir(parents=True)
    with pytest.raises(StoreError, match="holds other files than a backup, such as photos"):
        place.back_up()
    with pytest.raises(StoreError, match="there is no store"):
        back_up(tmp_path / "none/tasks.db", tmp_path / "none/blobs", tmp_path / "new")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        back_up(place.store.path, place.blobs.directory, file / "new")


async def test_an_older_program_refuses_a_newer_store(place: Place) -> None:
    await place.store.close()
    with closing(sqlite3.connect(place.store.path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(schemas()) + 1}")
    with pytest.raises(StoreTooNew, match="run the newer program"):
        place.back_up()
    assert not place.target.exists()
