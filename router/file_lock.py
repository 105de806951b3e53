"""A file's lock: at most one process holds it, and no longer than it lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LOOK_EVERY_S: Final = 0.01


class FileLock:
    """The lock of the file at `path`, which is made with its folder if it is missing. The file is never removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self) -> bool:
        """Take the lock if it is free; returns True while this object holds it. Raises `OSError`."""
        if self._fd is not None:
            return True
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Let another take it. Without effect while this object does not hold it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @contextlib.contextmanager
    def waited_for(self, within_s: float) -> Iterator[None]:
        """Hold the lock; wait for it before. Raises `OSError`, `TimeoutError` among them."""
        fd = self._open()
        try:
            wait_for(fd, within_s)
            yield
        finally:
            os.close(fd)

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def wait_for(fd: int, within_s: float) -> None:
    """Take the lock of an open file, which holds it until it is closed. Raises `TimeoutError`."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(LOOK_EVERY_S)
