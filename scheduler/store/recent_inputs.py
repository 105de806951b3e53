"""Inputs that were stored a moment ago, kept in memory: most tasks start before theirs is worth reading again."""

from __future__ import annotations

from typing import Final

from scheduler.store.contract import Body

KEPT_BYTES: Final = 16 << 20


class RecentInputs:
    """Inline inputs by task, `limit_bytes` together at most: the oldest ones go first."""

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._bodies: dict[str, Body] = {}

    def keep(self, task_id: str, body: Body) -> None:
        """Keep a task's input, unless it is a blob."""
        if body.blob is not None or task_id in self._bodies:
            return
        self._bodies[task_id] = body
        self._size_bytes += body.size_bytes
        while self._size_bytes > self._limit_bytes:
            self.drop(next(iter(self._bodies)))

    def get(self, task_id: str) -> Body | None:
        return self._bodies.get(task_id)

    def drop(self, task_id: str) -> None:
        body = self._bodies.pop(task_id, None)
        if body is not None:
            self._size_bytes -= body.size_bytes
