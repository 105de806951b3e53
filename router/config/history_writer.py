"""One writer for the history of configurations: the worker that holds a lock. What the others report is dropped.

Workers see a change within half a second of each other. If all wrote, a slow one would report an old change after a
newer one, and a worker that restarts would report the file again over a rollout's weights.
"""

from __future__ import annotations

import structlog

from router.config.history import History
from router.file_lock import FileLock
from router.routing.table import Table

log = structlog.get_logger()


class HistoryWriter:
    """Writes as `History` does, while this process holds the lock; takes it as soon as it is free."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._lock = FileLock(history.folder / "writer")

    def record(self, text: bytes, table: Table, now: float) -> bool:
        """See `History.record`; False too where another worker writes."""
        return self._writes() and self._history.record(text, table, now)

    def record_weights(self, table: Table, by: str, why: str, now: float) -> bool:
        """See `History.record_weights`; False too where another worker writes."""
        return self._writes() and self._history.record_weights(table, by, why, now)

    def close(self) -> None:
        """Stop writing; another worker may take over."""
        self._lock.release()

    def _writes(self) -> bool:
        try:
            return self._lock.take()
        except OSError as error:
            log.error("history cannot be written", folder=str(self._history.folder), reason=error.strerror)
            return False
