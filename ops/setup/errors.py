"""Errors of set-up, of the sample images and of the local stack."""

from __future__ import annotations

import errno


class OpsError(Exception):
    """A set-up step failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


def described(error: OSError) -> str:
    """Describe a system error such as a full disk in one line: the file, the error, and the remedy."""
    hints = {
        errno.ENOSPC: "free some space there and try again",
        errno.EDQUOT: "free some space there and try again",
        errno.EACCES: "give this user permission, or run make as its owner",
        errno.EPERM: "give this user permission, or run make as its owner",
        errno.EROFS: "use a checkout on a writable file system",
    }
    where = f"{error.filename}: " if error.filename else ""
    hint = f"; {hints[error.errno]}" if error.errno in hints else ""
    return f"{where}{error.strerror or error}{hint}"


class NoEngine(OpsError):
    """No container engine answers, and none could be started."""


class EngineFailed(OpsError):
    """The private container engine did not start."""


class ImageFailed(OpsError):
    """A sample image could not be built."""


class StackFailed(OpsError):
    """A part of the local stack did not become ready."""
