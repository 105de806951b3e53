"""Copies a store to another folder, also while its set runs. Blocking; used by operators, from a process of its own."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from scheduler.errors import DiskFull, StoreError
from scheduler.lock import FolderLock, LockHeld
from scheduler.source import SourceUnreadable
from scheduler.store import faults, holes
from scheduler.store.schema import refuse_newer
from scheduler.store.sql import queries
from scheduler.store.sync import sync_file, sync_folder

TRIES: Final = 10
"""Most copies of the database. A further one is needed where a body was deleted before it was copied, because its task
had ended: then the older copy would run that task again without its input. Each time fewer bodies are left to copy."""
_DATABASE: Final = "tasks.db"
_UNFINISHED: Final = ".tasks.db"
_BESIDE: Final = ("-journal", "-wal", "-shm")
"""Ends of the names of SQLite's own files. A process that is killed while it copies leaves them beside the copy."""
_ALL: Final = {"after": "", "limit": -1}
_WHOLE: Final = 1 << 62


class Backup(msgspec.Struct, frozen=True):
    """The content of a backup: `bodies` in files of their own, of which `copied` were copied this time."""

    bodies: int
    copied: int
    copied_bytes: int


def back_up(store: Path, blobs: Path, target: Path) -> Backup:
    """Copy the database `store` and the bodies in the folder `blobs` that it names into the folder `target`.

    `target` is new, empty, or has an earlier backup, which stays whole until the new one is. The copy is the store as
    it was at one moment, and survives loss of power once this returns. Raises `StoreError`, `StoreTooNew`, `DiskFull`.
    """
    try:
        _check_target(store.parent, target)
        if not store.is_file():
            raise StoreError(f"there is no store {store}; name the file of a set that has run")
        refuse_newer(store)
        return _back_up(store, blobs, target)
    except sqlite3.Error as error:
        # The store is only read, so it is the backup that finds no space.
        full = faults.from_sqlite(error, target / _DATABASE)
        raise (full if isinstance(full, DiskFull) else faults.from_sqlite(error, store)) from error
    except OSError as error:
        raise faults.from_os(error, target) from error


def _check_target(state: Path, target: Path) -> None:
    inside = target.resolve()
    if inside == state.resolve() or state.resolve() in inside.parents:
        raise StoreError(
            f"{target} is in the set's own state_dir; name a folder elsewhere, best on another disk"
        )
    others = (
        {each.name for each in target.iterdir()}
        - {_DATABASE, "blobs", _UNFINISHED, *(_UNFINISHED + end for end in _BESIDE)}
        if target.exists()
        else ()
    )
    if others:
        raise StoreError(
            f"{target} holds other files than a backup, such as {min(others)}; name a new folder"
        )


def _back_up(store: Path, blobs: Path, target: Path) -> Backup:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FolderLock(target)
    try:
        lock.take()
    except LockHeld as error:
        raise StoreError(f"another backup into {target} is being made; wait for its end") from error
    try:
        return _copy(store, blobs, target)
    finally:
        lock.release()


def _copy(store: Path, blobs: Path, target: Path) -> Backup:
    kept = target / "blobs"
    kept.mkdir(mode=0o700, exist_ok=True)
    unfinished = target / _UNFINISHED
    copied = copied_bytes = 0
    for _ in range(TRIES):
        names = _copy_database(store, unfinished)
        whole = True
        for name in names:
            if _at(kept, name).exists():
                continue
            size = _copy_body(_at(blobs, name), _at(kept, name))
            if size is None:
                whole = False
            else:
                copied, copied_bytes = copied + 1, copied_bytes + size
        if whole:
            unfinished.replace(target / _DATABASE)
            sync_folder(target)
            _drop_others(kept, names)
            return Backup(len(names), copied, copied_bytes)
    raise StoreError(
        "bodies of tasks that ended were deleted faster than they could be copied; back up while the set is less busy, "
        "or drain it before"
    )


def _copy_database(store: Path, to: Path) -> set[str]:
    """Copy the database as it is at one moment; return the names of the bodies that its tasks need."""
    for end in ("", *_BESIDE):
        to.with_name(to.name + end).unlink(missing_ok=True)
    os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(store, timeout=60.0)) as live, closing(sqlite3.connect(to)) as copy:
        # In one step: the set's writes meanwhile would otherwise begin it again.
        live.backup(copy)
        # Without files beside it, which the copy would otherwise have while it is read.
        copy.execute("PRAGMA journal_mode = DELETE")
        names = {name for (name,) in copy.execute(queries()["blobs_in_use"], _ALL)}
    sync_file(to)
    return names


def _at(folder: Path, name: str) -> Path:
    return folder / name[:2] / name


def _copy_body(source: Path, to: Path) -> int | None:
    """Copy a body, holes as holes; return its size, or None if it is gone."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not to.parent.is_dir():
            to.parent.mkdir(mode=0o700)
            sync_folder(to.parent.parent)
        size = os.fstat(fd).st_size
        unfinished = to.with_name(f".{to.name}")
        unfinished.unlink(missing_ok=True)
        made = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(made, "wb", buffering=0) as file:
            holes.copy(fd, 0, size, file, _WHOLE)
            os.fsync(file.fileno())
        unfinished.replace(to)
        sync_folder(to.parent)
        return size
    except SourceUnreadable as error:
        raise StoreError(f"{source}: {error}") from error
    finally:
        os.close(fd)


def _drop_others(kept: Path, names: set[str]) -> None:
    """Remove the bodies of earlier backups that the present one does not need, and half copies."""
    for path in kept.glob("*/*"):
        if path.name not in names:
            path.unlink()
