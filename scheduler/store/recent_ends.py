"""Tasks that succeeded a moment ago, kept in memory: most callers ask for the end as soon as it is there."""

from __future__ import annotations

from typing import Final

from scheduler.task import State, Task

KEPT: Final = 512
"""Number of tasks. One has at most 12 KiB of its outputs."""


class RecentEnds:
    """The last tasks that succeeded, outside a batch. Until they expire, only a later bill changes them (`Leftovers`):
    it changes the task that is kept here, then its row."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._tasks: dict[str, Task] = {}

    def keep(self, task: Task) -> None:
        """The end of the task is in the database."""
        if task.state is not State.SUCCEEDED or task.batch is not None:
            return
        self._tasks[task.id] = task
        if len(self._tasks) > self._most:
            del self._tasks[next(iter(self._tasks))]

    def get(self, task_id: str) -> Task | None:
        return self._tasks.get(task_id)

    def expire(self, now_us: int) -> None:
        """Forget the tasks whose time has passed."""
        tasks = self._tasks
        self._tasks = {each: tasks[each] for each in tasks if (tasks[each].expires_us or 0) > now_us}
