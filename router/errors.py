"""Errors of the router package; the docstring of a class is its default message."""

from __future__ import annotations


class RouterError(Exception):
    """The router could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


def reason_of(error: BaseException) -> str:
    """Return the words of an error for logs and answers; of a failed system call those of the system, and the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
