"""The rollout's progress on disk, and the lease that makes one process its leader.

The state is one file, replaced whole and synced. It is changed under a lock, one change at a time, by the leader's
clock and by operators' commands alike.

There is one leader among the workers and routers that share the folder: it holds a file lock, which the kernel releases
with its process. A lock may fail (two machines on a file system without locks; a leader that was frozen for an hour).
So taking the lease also raises the epoch in the state, and a leader with an older epoch may write nothing. Two leaders
are thus harmless: each change is made on the state on the disk, and only the younger leader's are taken.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from router.file_lock import FileLock
from router.rollout.record import Progress
from router.rollout.states import RolloutError

STATE: Final = "state.json"
COPY: Final = "state.last.json"
MAX_STATE_BYTES: Final = 4 * 1024 * 1024
LOCK_TIMEOUT_S: Final = 5.0
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Progress)


class StateUnreadable(RolloutError):
    """The rollout's state file cannot be read."""


class LeaseLost(RolloutError):
    """Another process leads this rollout now; nothing was written."""


class StateFile:
    """The state in `folder` (made if missing). Its calls do small file I/O and may wait for the lock: call them beside
    the event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / STATE
        self._copy = folder / COPY

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes whenever the file does; None: the file is missing."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> Progress:
        """Read the progress; a new one if there is no file. Raises `StateUnreadable`."""
        try:
            return _read(self.path)
        except FileNotFoundError:
            return Progress()
        except OSError as error:
            raise StateUnreadable(f"{self.path} cannot be read: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise StateUnreadable(
                f"{self.path} is damaged ({error}); nothing is ordered or moved by it. The last good weights stay, as "
                f"in {self._copy.name} beside it: copy that over it to go on, or remove it to start over"
            ) from error

    def last_good(self) -> Progress:
        """Read the copy of the last good state, for when the state itself is damaged; a new state if there is no copy.
        All processes that follow the state, new ones too, then keep the same weights."""
        try:
            return _read(self._copy)
        except (OSError, msgspec.MsgspecError):
            return Progress()

    def change(self, step: Callable[[Progress], Progress], *, epoch: int | None = None) -> Progress:
        """Read the state, change it by `step`, and write it; no other change comes between. Returns the state that is
        then on the disk.

        `epoch`: the leader's; raises `LeaseLost` if another process leads. Exceptions of `step` pass through, and
        nothing is written then, nor if it returns its argument. Raises `StateUnreadable`, `RolloutError`.
        """
        with self._locked():
            progress = self.read()
            if epoch is not None and progress.epoch != epoch:
                raise LeaseLost
            changed = step(progress)
            if changed is progress:
                return progress
            changed = msgspec.structs.replace(changed, revision=progress.revision + 1)
            self._write(_encoder.encode(changed))
            return changed

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(FileLock(self.folder / "lock").waited_for(LOCK_TIMEOUT_S))
            except TimeoutError:
                raise RolloutError("the rollout's state is being changed by another process") from None
            except OSError as error:
                raise RolloutError(
                    f"{self.folder} cannot be used for the rollout: {error.strerror}"
                ) from error
            yield

    def _write(self, data: bytes) -> None:
        new = self.folder / f".{STATE}.{os.getpid()}"
        try:
            write_whole(new, self.path, data)
            folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            # A copy for the case that somebody damages the file. A crash does not, as the file is synced; so the copy
            # is not.
            write_whole(new, self._copy, data, sync=False)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise RolloutError(f"{self.path} cannot be written: {error.strerror}") from error


def _read(path: Path) -> Progress:
    with path.open("rb") as file:
        return _decoder.decode(file.read(MAX_STATE_BYTES + 1))


def write_whole(new: Path, path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write `data` to `new`, then put it in the place of `path`."""
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    os.replace(new, path)


class Lease:
    """At most one process holds it; `epoch` is None while this one does not."""

    def __init__(self, state: StateFile, name: str = "") -> None:
        self._state = state
        self._name = name
        self._lock = FileLock(state.folder / "lease")
        self.epoch: int | None = None

    def take(self) -> bool:
        """Try to lead; True when this process does (already, or from now on). Raises `RolloutError`."""
        if self.epoch is not None:
            return True
        try:
            if not self._lock.take():
                return False
        except OSError as error:
            raise RolloutError(f"no lease in {self._state.folder}: {error.strerror}") from error
        try:
            progress = self._state.change(
                lambda old: msgspec.structs.replace(old, epoch=old.epoch + 1, led_by=self._name)
            )
        except BaseException:
            self._lock.release()
            raise
        self.epoch = progress.epoch
        return True

    def drop(self) -> None:
        """Stop leading."""
        self.epoch = None
        self._lock.release()
