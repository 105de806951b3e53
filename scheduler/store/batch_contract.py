"""The contract of a store of batches, which is a part of a store of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from scheduler.batch import Batch, BatchCounts
from scheduler.store.contract import Body, Idempotency
from scheduler.task import Task


class MadeTask(msgspec.Struct, frozen=True):
    """A new task of a batch, with its input, which begins at byte `item` of the spool.

    `earlier`: the ended task of this input, which leaves the batch.
    """

    task: Task
    stdin: Body
    item: int
    earlier: Task | None = None


class BatchStore(Protocol):
    """All calls are durable against loss of power, and raise `StoreError` and `DiskFull`."""

    async def add(self, batch: Batch, idempotency: Idempotency | None, most: int) -> Batch:
        """Store a new batch and its spool; an account has at most `most` batches.

        Returns `batch`, or the one that the same key and fingerprint made within 24 h. Raises `AccountLimit`, and
        `IdempotencyConflict` when the key was used for another request.
        """

    async def check_room(self, account: str, most: int) -> None:
        """Raise `AccountLimit` if the account has `most` batches."""

    async def save(self, batch: Batch) -> None:
        """Write a batch's present facts. Its tasks expire with it; a spool that it no longer names is free."""

    async def fill(self, batch: Batch, made: Sequence[MadeTask]) -> None:
        """Store new tasks of a batch, and its facts, all or nothing."""

    async def get(self, batch_id: str) -> Batch | None: ...

    async def keyed(self, account: str, key: str, now_us: int) -> Batch | None:
        """Return the batch that an account made under this idempotency key in the 24 h before `now_us`."""

    async def page(self, account: str, before: str | None, limit: int) -> list[Batch]:
        """Return batches of the account with ids below `before`, newest first."""

    async def twin(self, account: str, idempotency: Idempotency, now_us: int) -> Batch | None:
        """As `keyed`, for a call that may be the same. Raises `IdempotencyConflict` if it is another request."""

    async def open_batches(self) -> list[Batch]:
        """Return the batches that are not over, oldest first."""

    async def counts(self, batch: Batch) -> BatchCounts: ...

    async def live(self, batch_id: str) -> list[str]:
        """Return the ids of the batch's tasks that are queued or running."""

    async def failed(self, batch: Batch, limit: int) -> list[tuple[int, Task]]:
        """Return tasks of earlier rounds that have not succeeded, each with its item."""

    async def ended(self, batch_id: str, after: int, limit: int) -> list[tuple[int, Task]]:
        """Return the ended tasks behind place `after`, in the order of their ends, each with its place."""
