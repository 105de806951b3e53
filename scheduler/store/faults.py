"""Translates errors of SQLite and the file system into ours, keeping the cause."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from scheduler.errors import DiskFull, SchedulerError, StoreError

_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SYNC_FAILURES: Final = frozenset({"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"})
_NEARLY_NOTHING_BYTES: Final = 256 * 1024


def free_bytes(directory: Path) -> int:
    """Return the bytes that an unprivileged process may still write to the file system of `directory`."""
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


def is_sync_failure(error: BaseException) -> bool:
    """True if the system failed to confirm that data reached the disk."""
    return getattr(error, "sqlite_errorname", "") in _SYNC_FAILURES


def from_sqlite(error: sqlite3.Error, path: Path) -> SchedulerError:
    """Return `DiskFull` if space is missing, else `StoreError` with the file and SQLite's error."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    # SQLite reports a full disk as an I/O error when it extends its shared index.
    if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _is_full(path.parent)):
        return DiskFull(f"the disk of the store {path} is full")
    return StoreError(f"store {path}: {error} ({name})")


def from_os(error: OSError, path: Path) -> SchedulerError:
    """Return `DiskFull` if space is missing, else `StoreError`."""
    if error.errno in _FULL_ERRNOS:
        return DiskFull(f"the disk of {path} is full")
    return StoreError(f"{path}: {error.strerror or error}")


def _is_full(directory: Path) -> bool:
    try:
        return free_bytes(directory) < _NEARLY_NOTHING_BYTES
    except OSError:
        return False
