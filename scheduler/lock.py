"""Locks that let one process use a folder, and end with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from scheduler.errors import SchedulerError


class LockHeld(SchedulerError):
    """Another process holds the lock."""


class FileLock:
    """A lock, held from `take` to `release`. The file contains the owner's process id and is never removed."""

    what = "the folder"
    """Name of the locked thing in messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def take(self) -> None:
        """Take the lock. Raises `LockHeld` with the owner if another process (or object) holds it, and `OSError`."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise LockHeld(f"{self.what} is in use by process {owner} (lock file {self.path})") from None
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk: the lock still holds; only the message of a second process lacks the id

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class FolderLock:
    """A lock on a folder itself, for one that slots see: they cannot read it, so none can open it and hold its lock.

    A lock file would not do, since a slot's root is the file's owner. Held from `take` to `release`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def take(self) -> None:
        """Take the lock. Raises `LockHeld` if another process (or object) holds it, and `OSError`."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise LockHeld(f"{self.path} is in use by another process") from None
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
