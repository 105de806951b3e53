"""Errors of the router package; the docstring of a class is its default message."""

from __future__ import annotations


class RouterError(Exception):
    """The router could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
