"""A folder is one process's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scheduler.lock import FileLock, FolderLock, LockHeld


def test_a_second_owner_is_told_of_the_first(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.take()
    with pytest.raises(LockHeld, match=rf"in use by process {os.getpid()} \(lock file .*/lock\)"):
        second.take()
    first.release()
    second.take()
    second.release()
    second.release()


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "none" / "lock").take()


def test_a_folder_itself_is_locked_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.take()
    with pytest.raises(LockHeld, match=f"{tmp_path} is in use by another process"):
        second.take()
    first.release()
    second.take()
    second.release()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_folder_cannot_be_locked_as_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        FolderLock(tmp_path / "file").take()
