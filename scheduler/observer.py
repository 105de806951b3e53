"""The contract of what counts a manager's events for metrics."""

from __future__ import annotations

from typing import Protocol

from scheduler.task import Task


class Observer(Protocol):
    """Receives what metrics count."""

    def task_ended(self, task: Task) -> None: ...

    def slot_started(self, seconds: float) -> None: ...
