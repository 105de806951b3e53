"""The workers of one router: how many, which one this is, and what they share. Made once, before they are forked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from router.errors import RouterError
from router.workers.occupancy import Loads, Occupancy

MOST_WORKERS: Final = 64
ALIVE: Final = "alive"
"""The file that a living router keeps locked in its folder."""
BEING_MADE_S: Final = 60.0
"""Age in seconds up to which a folder without that file may belong to another router that is just starting."""


class WorkerGroupError(RouterError):
    """The workers cannot be set up."""


class WorkerGroup(msgspec.Struct, frozen=True):
    """`folder` holds the files by which the workers talk to each other; None: there is only one.

    `boot` is a new word at every start of the router, but not of a worker. `lock`: the descriptor by which others see
    that this router, or a worker of it, lives.
    """

    count: int = 1
    folder: Path | None = None
    occupancy: Occupancy | None = None
    boot: str = msgspec.field(default_factory=lambda: secrets.token_hex(4))
    lock: int | None = None

    @classmethod
    def make(cls, count: int, parent: Path) -> WorkerGroup:
        """Make this router's own folder in `parent`, remove those of routers that have ended, and map the shared
        memory. Routers that release together have the same `parent`. Raises `WorkerGroupError`."""
        if not 1 <= count <= MOST_WORKERS:
            raise WorkerGroupError(f"a router may have 1 to {MOST_WORKERS} workers, not {count}")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            os.chmod(parent, 0o700)
            boot, lock = _own(parent)
            _clear(parent)
        except OSError as error:
            raise WorkerGroupError(f"a folder cannot be made in {parent}: {error.strerror}") from error
        return cls(count, parent / boot, Occupancy(count) if count > 1 else None, boot, lock)

    def free_index(self, taken: Iterable[int]) -> int:
        """The lowest index that no living worker has."""
        return min(set(range(self.count)) - set(taken), default=self.count - 1)

    def loads(self, index: int) -> Loads:
        return Loads(self.occupancy, index)

    def part(self, index: int, whole: int) -> int:
        """A worker's part of something that all share; the parts add up to the whole."""
        return whole // self.count + (index < whole % self.count)

    def worker_ended(self, index: int) -> None:
        """A worker has ended: it has nothing in flight."""
        if self.occupancy is not None:
            self.occupancy.clear(index)


def _own(parent: Path) -> tuple[str, int]:
    """Make a folder; return its name and the lock in it, which is held until the last process of this router ends,
    because forked workers have it too. A process id would mean nothing to a router in another container. Raises
    `OSError`."""
    while True:
        boot = secrets.token_hex(4)
        folder = parent / boot
        folder.mkdir(mode=0o700)
        lock = os.open(folder / ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(folder / ALIVE)):
                return boot, lock
        except (BlockingIOError, FileNotFoundError):
            pass  # Another one that starts took it for a dead router's, in the moment before the lock.
        os.close(lock)


def _clear(parent: Path) -> None:
    """Remove the folders of dead routers."""
    for folder in parent.iterdir():
        if not folder.is_dir():
            continue
        try:
            lock = os.open(folder / ALIVE, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > BEING_MADE_S:
                    shutil.rmtree(folder, ignore_errors=True)
            continue
        except OSError:
            continue  # Another user's.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # It lives.
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
