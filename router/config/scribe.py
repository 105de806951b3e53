"""One writer for the history of configurations: the worker that holds a lock; the others' words are dropped.

Workers see a change within half a second of each other. If all wrote, a slow one would report an old change after a
newer one, and a worker that restarts would report the file again over a rollout's weights.
"""

from __future__ import annotations

import fcntl
import os

import structlog

from router.config.history import History
from router.routing.table import Table

log = structlog.get_logger()


class Scribe:
    """Writes as `History` does, while this process holds the lock; takes it as soon as it is free."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._fd: int | None = None

    def record(self, text: bytes, table: Table, now: float) -> bool:
        """See `History.record`; False too where another worker writes."""
        return self._writes() and self._history.record(text, table, now)

    def record_weights(self, table: Table, by: str, why: str, now: float) -> bool:
        """See `History.record_weights`; False too where another worker writes."""
        return self._writes() and self._history.record_weights(table, by, why, now)

    def close(self) -> None:
        """Write no more; another one may."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _writes(self) -> bool:
        if self._fd is not None:
            return True
        try:
            self._history.folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._history.folder / "writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.error("history cannot be written", folder=str(self._history.folder), reason=error.strerror)
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True
