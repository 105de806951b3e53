"""Bills what a slot used after the end of its last task: a program started ahead of a task that never came, and the
clean-up after that task, where it cost more than its allowance."""

from __future__ import annotations

from typing import Final

import structlog

from scheduler.background import Background
from scheduler.errors import SchedulerError
from scheduler.roster import Roster
from scheduler.store.contract import Durability, Store
from scheduler.task import Kind, Task

log = structlog.get_logger()

SLOTS_MOST: Final = 10_000


class Leftovers:
    """Adds to the bill of the slot's last task: the program was started for its account, the clean-up is its doing."""

    def __init__(self, store: Store, roster: Roster) -> None:
        self._store = store
        self._roster = roster
        self._last: dict[str, str] = {}
        self._background = Background()

    def begun(self, slot_id: str, task: Task) -> None:
        """A task begins in a slot: what was left over there until now is in this task's own bill."""
        last = self._last
        # The slots that were used last come last.
        last.pop(slot_id, None)
        if len(last) >= SLOTS_MOST:
            del last[next(iter(last))]
        last[slot_id] = task.id

    def used(self, slot_id: str, cpu_us: int) -> None:
        """A slot ends in which this was used after its last task."""
        task_id = self._last.pop(slot_id, None)
        if task_id is not None and cpu_us > 0:
            self._background.spawn(self._bill(task_id, cpu_us))

    async def close(self, grace_s: float) -> None:
        """Wait for what is being written."""
        await self._background.stop(grace_s)

    async def _bill(self, task_id: str, cpu_us: int) -> None:
        entry = self._roster.entries.get(task_id)
        try:
            if entry is not None:
                # Its own record is still being written, and comes first.
                await self._roster.removal_of(task_id)
            task = await self._store.get(task_id)
            if task is None:
                log.warning(
                    "nobody to bill for what a slot used after its last task", task=task_id, cpu_us=cpu_us
                )
                return
            task.cpu_us += cpu_us
            durability = Durability.PROCESS if task.spec.kind is Kind.SYNC else Durability.POWER
            await self._store.update(task, durability)
        except SchedulerError as error:
            log.error(
                "what a slot used after its last task is not billed",
                task=task_id,
                cpu_us=cpu_us,
                error=str(error),
            )
