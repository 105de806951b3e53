"""Decisions of the cell: instructions to the owner of slots and tasks."""

from __future__ import annotations

import msgspec

from scheduler.pool import PoolKey


class Assign(msgspec.Struct, frozen=True):
    """Run the task in the slot now. `cold`: the task waited for the slot's start."""

    task_id: str
    slot_id: str
    cold: bool


class StartSlot(msgspec.Struct, frozen=True):
    """Start a slot of the pool on the node."""

    slot_id: str
    pool: PoolKey
    node_id: str


class StopSlot(msgspec.Struct, frozen=True):
    """Let an idle slot go."""

    slot_id: str


class DropSlot(msgspec.Struct, frozen=True):
    """The slot is given up: it did not start in time, or its node is lost. An attempt that runs in it is lost."""

    slot_id: str
    reason: str


class FailTask(msgspec.Struct, frozen=True):
    """The task cannot run: its pool's slots cannot be started."""

    task_id: str
    error: Exception


class QueueExpired(msgspec.Struct, frozen=True):
    """The task has waited for its longest time and has left the queue. `waited_for` says in words for what."""

    task_id: str
    waited_for: str


class TimeUp(msgspec.Struct, frozen=True):
    """Kill the running task: it has run for its longest time."""

    task_id: str


class GiveUp(msgspec.Struct, frozen=True):
    """The platform has lost every attempt that the task may have."""

    task_id: str


class GiveWay(msgspec.Struct, frozen=True):
    """Kill the running spare task; its attempt does not count. `Cell.task_gave_way` puts it back into the queue."""

    task_id: str


class ExpireRows(msgspec.Struct, frozen=True):
    """Have the store remove tasks that are no longer kept: up to `rounds` portions of them."""

    rounds: int


class SweepBlobs(msgspec.Struct, frozen=True):
    """Remove blobs that no row names, where they are at least `min_age_s` old; None: older than this run of the set."""

    min_age_s: float | None


Decision = (
    Assign
    | StartSlot
    | StopSlot
    | DropSlot
    | FailTask
    | QueueExpired
    | TimeUp
    | GiveUp
    | GiveWay
    | ExpireRows
    | SweepBlobs
)
