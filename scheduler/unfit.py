"""Remembers which images must not be prestarted."""

from __future__ import annotations

from typing import Final

import structlog

log = structlog.get_logger()

_MOST: Final = 10_000
"""How many images are remembered; the oldest is forgotten first."""


class UnfitImages:
    """Digests of images whose programs did not wait for their input as they must, the oldest first."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def __contains__(self, digest: str | None) -> bool:
        return digest in self._reasons

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, digest: str | None, reason: str) -> None:
        """The image is no longer prestarted; None, or an image that is known, changes nothing."""
        if digest is None or digest in self._reasons:
            return
        log.warning("image is no longer prestarted", image=digest, reason=reason)
        if len(self._reasons) >= _MOST:
            del self._reasons[next(iter(self._reasons))]
        self._reasons[digest] = reason
