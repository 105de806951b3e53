"""Errors of set-up, of the sample images and of the local stack."""

from __future__ import annotations


class OpsError(Exception):
    """The step could not be done."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class NoEngine(OpsError):
    """No container engine answers, and none could be started."""


class EngineFailed(OpsError):
    """The private container engine did not start."""


class ImageFailed(OpsError):
    """A sample image could not be built."""


class StackFailed(OpsError):
    """A part of the local stack did not become ready."""
