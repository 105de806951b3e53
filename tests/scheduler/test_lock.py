"""A folder is one process's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scheduler.lock import FileLock, LockHeld


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
