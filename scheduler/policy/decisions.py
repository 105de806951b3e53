"""What the dispatching policy decides: instructions to whoever owns the slots and tasks."""

from __future__ import annotations

import msgspec

from scheduler.pool import PoolKey


class Assign(msgspec.Struct, frozen=True):
    """Run the task in the slot now."""

    task_id: str
    slot_id: str
    cold: bool


class StartSlot(msgspec.Struct, frozen=True):
    slot_id: str
    pool: PoolKey


class StopSlot(msgspec.Struct, frozen=True):
    slot_id: str


class FailTask(msgspec.Struct, frozen=True):
    """The task cannot run: its pool's slots cannot be started."""

    task_id: str
    error: Exception


Decision = Assign | StartSlot | StopSlot | FailTask
