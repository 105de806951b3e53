"""Bills the CPU time of a program that was started ahead of a task, when that task never came."""

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
    """A process now waits that was started for the account of the slot's last task: that task's bill takes it."""

    def __init__(self, store: Store, roster: Roster) -> None:
        self._store = store
        self._roster = roster
        self._last: dict[str, str] = {}
        self._background = Background()

    def begun(self, slot_id: str, task: Task) -> None:
        """A task begins in a slot; what was started ahead in it, if anything, is this task's process now."""
        if task.spec.prestart:
            if len(self._last) >= SLOTS_MOST:
                del self._last[next(iter(self._last))]
            self._last[slot_id] = task.id
        elif self._last:
            self._last.pop(slot_id, None)

    def used(self, slot_id: str, cpu_us: int) -> None:
        """A slot ends in which a program that waited had used this."""
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
                log.warning("nobody to bill for a program started ahead", task=task_id, cpu_us=cpu_us)
                return
            task.cpu_us += cpu_us
            durability = Durability.PROCESS if task.spec.kind is Kind.SYNC else Durability.POWER
            await self._store.update(task, durability)
        except SchedulerError as error:
            log.error("a program started ahead is not billed", task=task_id, cpu_us=cpu_us, error=str(error))
