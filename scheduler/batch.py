"""A batch: one image over many inputs, which lie in one spool until the batch is over. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from scheduler.store.contract import Body
from scheduler.task import State, TaskSpec


class Format(StrEnum):
    """The form of a spool: JSON lines, or a tar archive. The spool is the request's body as it came."""

    LINES = "lines"
    TAR = "tar"


class BatchState(StrEnum):
    """The state of a batch: RUNNING until every input has its outcome, or, once it is cancelled, every task."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Batch(msgspec.Struct, omit_defaults=True):
    """The facts of a batch. Times are microseconds since the epoch.

    `spec` is the request of each task, without the parts that its input adds; its `name` is the batch's own. An input
    is known by `item`, the byte of the spool where it begins. Inputs from byte `next_item` on have no task yet; `made`
    inputs before it have one. `round` counts the retries: a failed task of an earlier round is run again.
    `keyed_until_us`: a batch with an idempotency key is kept until then at least, as the key answers with it.
    """

    id: str
    spec: TaskSpec
    format: Format
    inputs: int
    spool: Body
    created_us: int
    next_item: int = 0
    made: int = 0
    round: int = 0
    cancelled: bool = False
    detail: str | None = None
    ended_us: int | None = None
    expires_us: int | None = None
    keyed_until_us: int | None = None


class BatchCounts(msgspec.Struct, frozen=True):
    """How many tasks of a batch are in each state; `again`: those that failed and are to be run again."""

    states: dict[State, int] = {}
    again: int = 0

    def waiting(self, batch: Batch) -> int:
        """How many inputs wait for their task to be made, for the first time or again; none of a cancelled batch."""
        return 0 if batch.cancelled else batch.inputs - batch.made + self.again

    def cancelled(self, batch: Batch) -> int:
        """How many inputs were cancelled, those included that never had a task."""
        never_made = batch.inputs - batch.made + self.again if batch.cancelled else 0
        return self.states.get(State.CANCELLED, 0) + never_made

    @property
    def live(self) -> int:
        """How many tasks are queued or running."""
        return self.states.get(State.QUEUED, 0) + self.states.get(State.RUNNING, 0)

    @property
    def unsuccessful(self) -> int:
        """How many tasks ended in any state but `succeeded`."""
        return sum(self.states.values()) - self.live - self.states.get(State.SUCCEEDED, 0) + self.again


def state_of(batch: Batch, counts: BatchCounts) -> BatchState:
    """The state of a batch whose tasks have these states."""
    if batch.ended_us is None:
        return BatchState.RUNNING
    if batch.cancelled:
        return BatchState.CANCELLED
    return BatchState.FAILED if counts.unsuccessful else BatchState.SUCCEEDED
