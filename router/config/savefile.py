"""Saving the operators' file: whole or not at all, as who it was, and never over somebody else's edit."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from router.config.edit import EditError
from router.config.reader import MAX_FILE_BYTES
from router.file_lock import wait_for

_NO_REPLACING: Final = (errno.EBUSY, errno.EACCES, errno.EPERM)
"""A file that is a mount point itself, or in a folder where we may not write: then it is written in place."""

LOCK_TIMEOUT_S: Final = 10.0
TURNS_AT_MOST: Final = 50


class ChangedMeanwhile(EditError):
    """Somebody else saved the file meanwhile; nothing was changed. Look at it, and do it again."""


class OpenFile(msgspec.Struct, frozen=True):
    """A file that is being edited: `real` is where its links lead, `text` what was read."""

    path: Path
    real: Path
    text: bytes
    _stamp: tuple[int, int, int, int]

    def save(self, text: bytes) -> None:
        """Put `text` in its place; mode and owner stay, and links too.

        Raises `ChangedMeanwhile`, `EditError` (with what to do).
        """
        try:
            self._check()
            try:
                self._replace(text)
            except OSError as error:
                if error.errno not in _NO_REPLACING:
                    raise
                self._check()
                self._overwrite(text)
        except OSError as error:
            raise EditError(f"{self.real} cannot be written: {error.strerror}") from error

    def _check(self) -> None:
        if self.path.resolve() != self.real or _read(self.real) != (self.text, self._stamp):
            raise ChangedMeanwhile

    def _replace(self, text: bytes) -> None:
        before = os.stat(self.real)
        unfinished = self.real.with_name(f".{self.real.name}.{os.getpid()}.new")
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text)
                file.flush()
                made = os.fstat(file.fileno())
                if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
                _copy_attributes(self.real, unfinished)
                os.fsync(file.fileno())
            self._check()
            unfinished.replace(self.real)
        finally:
            unfinished.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder = os.open(self.real.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _overwrite(self, text: bytes) -> None:
        """One write and one cut: the router never takes the short moment between for a whole file, as it reads a
        file that changes twice."""
        with self.real.open("r+b", buffering=0) as file:
            file.write(text)
            file.truncate(len(text))
            os.fsync(file.fileno())


def create(path: Path, text: bytes) -> None:
    """Write a file that was deleted. Raises `ChangedMeanwhile` if it exists again, `EditError` if it cannot be
    written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except FileExistsError:
        raise ChangedMeanwhile from None
    except OSError as error:
        raise EditError(f"{path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[OpenFile]:
    """Read a file to edit it; two of us take turns. Raises `EditError`."""
    try:
        real = path.resolve(strict=True)
    except OSError as error:
        raise EditError(f"{path} cannot be read: {error.strerror}") from error
    if any(part == "..data" or part.startswith("..20") for part in real.parts):
        raise EditError(
            f"{path} lies in a Kubernetes volume, which takes no edits; edit its ConfigMap or Secret"
        )
    if not real.is_file():
        raise EditError(f"{path} is no regular file; name the router's YAML file")
    with contextlib.ExitStack() as stack:
        try:
            text, stamp = _locked(stack, path, real)
        except OSError as error:
            raise EditError(f"{path} cannot be read: {error.strerror}") from error
        if len(text) > MAX_FILE_BYTES:
            raise EditError(f"{path} is larger than {MAX_FILE_BYTES // 1024} KiB")
        yield OpenFile(path, real, text, stamp)


def _locked(stack: contextlib.ExitStack, path: Path, real: Path) -> tuple[bytes, tuple[int, int, int, int]]:
    """Lock the file and return its content. The one before us may have put another in its place."""
    for _ in range(TURNS_AT_MOST):
        lock = stack.enter_context(real.open("rb"))
        try:
            wait_for(lock.fileno(), LOCK_TIMEOUT_S)
        except TimeoutError:
            raise EditError(f"{path} is being edited by another command; try again") from None
        text, stamp = _read(real)
        if os.fstat(lock.fileno()).st_ino == stamp[1]:
            return text, stamp
    raise ChangedMeanwhile


def _read(path: Path) -> tuple[bytes, tuple[int, int, int, int]]:
    with path.open("rb") as file:
        text = file.read(MAX_FILE_BYTES + 1)
        found = os.fstat(file.fileno())
    return text, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _copy_attributes(source: Path, target: Path) -> None:
    """Access lists and labels, as far as the file system and our rights go."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
