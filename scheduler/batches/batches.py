"""The batches of a set: the door to them, beside the task manager, which runs their tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec
import structlog

from scheduler.background import Background
from scheduler.batch import Batch, BatchCounts, Format
from scheduler.batches.expansion import Expansion
from scheduler.batches.item import ItemLimits
from scheduler.batches.spool import Spools
from scheduler.clock import wall_us
from scheduler.errors import BatchUnknown, Draining, SchedulerError
from scheduler.images.contract import ImageSource
from scheduler.manager import Manager
from scheduler.store.batch_contract import BatchStore
from scheduler.store.contract import IDEMPOTENCY_WINDOW_US, Blobs, Body, Idempotency
from scheduler.task import State, Task, TaskSpec

log = structlog.get_logger()

CANCEL_WAIT_S: Final = 10.0
"""How long `cancel` waits for the end of the batch, in seconds."""


class BatchLimits(msgspec.Struct, frozen=True):
    """Limits of batches. `account`: batches of one account that are kept; `keep_s`: how long an ended one is.

    `account_most`: most tasks of one account's batches that wait or run at a time.
    """

    inputs: int = 100_000
    account: int = 100
    keep_s: int = 86_400
    account_most: int = 10_000


class Progress(NamedTuple):
    """A batch as it is now. `waiting_for`: why it makes no tasks now, in words; None where it does, or needs none."""

    batch: Batch
    counts: BatchCounts
    waiting_for: str | None


class BatchFacts(NamedTuple):
    """Numbers of a set's batches. `waiting`: inputs of open batches whose task is not made for the first time yet.

    `queued` and `running` tasks are those of open batches; `made` and `ended` count tasks since the set started.
    """

    open: int
    waiting: int
    queued: int
    running: int
    made: int
    ended: dict[State, int]


class Batches:
    """All batches of a set. `task_ended` receives every task that ends.

    It opens after the manager, and closes before it. Methods that take a batch's id raise `BatchUnknown`, also for
    another account's batch.
    """

    def __init__(
        self,
        limits: BatchLimits,
        manager: Manager,
        store: BatchStore,
        blobs: Blobs,
        images: ImageSource,
        *,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self.limits = limits
        self.manager = manager
        self.store = store
        self.spools = Spools(blobs)
        self._blobs = blobs
        self.images = images
        self.keep_us = limits.keep_s * 1_000_000
        self.account_most = limits.account_most
        self.now_us = now_us
        self._open: dict[str, Expansion] = {}
        self._of_account: dict[str, set[Expansion]] = {}
        self.made = 0
        self._ended: dict[State, int] = {}
        self._background = Background()
        # Writes that are never broken off, as their callers may go away.
        self._writes = Background()
        # By id of a batch, while somebody holds it.
        self._retrying: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Go on with the batches that an earlier run left. Raises `StoreError`."""
        for batch in await self.store.open_batches():
            expansion = self._register(batch)
            await expansion.look()
            self._background.spawn(self._follow(expansion))
            if expansion.batch.cancelled:
                self._background.spawn(expansion.cancel_live())

    async def close(self) -> None:
        """Make no more tasks. Batches go on with the next start."""
        await self._background.stop(0)
        await self._writes.stop(CANCEL_WAIT_S)
        self.spools.close()

    def task_ended(self, task: Task) -> None:
        """A task has ended, and that is stored."""
        if task.batch is None:
            return
        self._ended[task.state] = self._ended.get(task.state, 0) + 1
        expansion = self._open.get(task.batch)
        if expansion is not None:
            expansion.task_ended(task.id)

    def live_of(self, account: str) -> int:
        """How many tasks of the account's batches wait or run."""
        return sum(len(expansion.live) for expansion in self._of_account.get(account, ()))

    def facts(self) -> BatchFacts:
        """Numbers of the open batches of all accounts, as they are now."""
        open_batches = [each.batch for each in self._open.values()]
        live = sum(len(each.live) for each in self._open.values())
        running = sum(self.manager.running_among(each.live) for each in self._open.values())
        return BatchFacts(
            len(open_batches),
            sum(batch.inputs - batch.made for batch in open_batches if not batch.cancelled),
            live - running,
            running,
            self.made,
            dict(self._ended),
        )

    # -- calls

    async def submit(
        self, spec: TaskSpec, form: Format, body: Body, input_bytes: int, idempotency: Idempotency | None
    ) -> Batch:
        """Keep a batch whose spool is `body`; when this returns it survives loss of power. Takes over `body`'s blob.

        `input_bytes`: the most bytes of one input. A caller that is cancelled meanwhile has submitted it all the same.
        Raises `BadRequest` that names the wrong input, `AccountLimit`, `IdempotencyConflict`, `StoreError`, `DiskFull`,
        `Draining`; then the blob is deleted.
        """
        return await asyncio.shield(
            self._writes.spawn(self._submit(spec, form, body, input_bytes, idempotency), awaited=True)
        )

    async def check_room(self, account: str) -> None:
        """Raise `AccountLimit` if the account has as many batches as it may; before a body is read."""
        await self.store.check_room(account, self.limits.account)

    async def get(self, account: str, batch_id: str) -> Progress:
        """The batch as it is now."""
        return await self._progress(await self._batch(account, batch_id))

    async def page(self, account: str, before: str | None, limit: int) -> list[Progress]:
        """The account's batches with ids below `before`, newest first."""
        found = await self.store.page(account, before, limit)
        return [await self._progress(batch) for batch in found]

    async def wait(self, account: str, batch_id: str, timeout_s: float) -> Progress:
        """As `get`, once the batch is over or `timeout_s` passed."""
        expansion = self._open.get(batch_id)
        if expansion is not None and expansion.batch.spec.account == account:
            await asyncio.wait({expansion.over}, timeout=timeout_s)
        return await self.get(account, batch_id)

    async def keyed(self, account: str, key: str) -> Progress:
        """The batch that this idempotency key made."""
        batch = await self.store.keyed(account, key, self.now_us())
        if batch is None:
            raise BatchUnknown("no batch was made under this key here within 24 h")
        return await self.get(account, batch.id)

    async def twin(self, account: str, idempotency: Idempotency) -> Batch | None:
        """The batch that the same call made under this key. Raises `IdempotencyConflict` if it was another call."""
        return await self.store.twin(account, idempotency, self.now_us())

    async def cancel(self, account: str, batch_id: str) -> Progress:
        """End a batch; one that is over stays as it is. Its tasks may still be ending when this returns."""
        await self._batch(account, batch_id)
        expansion = self._open.get(batch_id)
        if expansion is not None:
            cancelling = self._writes.spawn(expansion.cancel("cancelled by its owner"), awaited=True)
            await asyncio.wait({cancelling, expansion.over}, timeout=CANCEL_WAIT_S)
            if cancelling.done():
                cancelling.result()
        return await self.get(account, batch_id)

    async def cancel_all(self, account: str) -> None:
        """End all batches of an account that are not over."""
        for expansion in list(self._of_account.get(account, ())):
            await expansion.cancel("the account was suspended")

    async def retry(self, account: str, batch_id: str) -> Progress:
        """Run again what failed, timed out or was cancelled; a batch without that stays as it is.

        Raises `Draining`.
        """
        await self._batch(account, batch_id)
        if self.manager.draining:
            raise Draining
        # Two calls at a time must not both begin a round of a batch that is over.
        async with self._retrying.setdefault(batch_id, asyncio.Lock()):
            expansion = self._open.get(batch_id)
            if expansion is None or not await self._again(expansion):
                batch = await self._next_round(await self._batch(account, batch_id))
                if batch is not None:
                    self._begin(batch)
        return await self.get(account, batch_id)

    async def ended(self, account: str, batch_id: str, after: int, limit: int) -> list[tuple[int, Task]]:
        """Ended tasks of the batch behind place `after`, in the order of their ends, each with its place."""
        await self._batch(account, batch_id)
        return await self.store.ended(batch_id, after, limit)

    # -- parts of calls

    async def _submit(
        self, spec: TaskSpec, form: Format, body: Body, input_bytes: int, idempotency: Idempotency | None
    ) -> Batch:
        try:
            if self.manager.draining:
                raise Draining
            inputs = await self.spools.count(body, form, ItemLimits(self.limits.inputs, input_bytes))
            now_us = self.now_us()
            batch = Batch(self.manager.ids.new(), spec, form, inputs, body, now_us)
            if idempotency is not None:
                batch.keyed_until_us = now_us + IDEMPOTENCY_WINDOW_US
            kept = await self.store.add(batch, idempotency, self.limits.account)
        except SchedulerError:
            # One that is broken off may be stored all the same: the sweep knows whether a row names its blob.
            if body.blob is not None:
                await self._blobs.delete([body.blob])
            raise
        if body.blob is not None and kept.id != batch.id:
            await self._blobs.delete([body.blob])
        if kept.id == batch.id and not self.manager.stopping:
            self._begin(batch)
        return kept

    async def _again(self, expansion: Expansion) -> bool:
        """Begin the next round of an open batch. Returns False if it is over meanwhile."""
        async with expansion.turn:
            if expansion.batch.ended_us is not None:
                return False
            changed = await self._next_round(expansion.batch)
            if changed is not None:
                expansion.batch = changed
                expansion.wake()
            return True

    async def _next_round(self, batch: Batch) -> Batch | None:
        """Store the beginning of the next round; None, and nothing is stored, if nothing is to be run again.

        Raises `BatchUnknown` for a batch whose time has passed: some of its tasks may be removed already.
        """
        if batch.expires_us is not None and batch.expires_us <= self.now_us():
            raise BatchUnknown(f"batch {batch.id} is no longer kept; submit its inputs again")
        counts = await self.store.counts(batch)
        if not counts.unsuccessful and not batch.cancelled:
            return None
        changed = msgspec.structs.replace(
            batch, round=batch.round + 1, cancelled=False, detail=None, ended_us=None, expires_us=None
        )
        await self.store.save(changed)
        return changed

    async def _progress(self, batch: Batch) -> Progress:
        expansion = self._open.get(batch.id)
        if expansion is not None:
            batch = expansion.batch
        counts = await self.store.counts(batch)
        return Progress(batch, counts, None if expansion is None else expansion.waiting_for)

    async def _batch(self, account: str, batch_id: str) -> Batch:
        expansion = self._open.get(batch_id)
        batch = expansion.batch if expansion is not None else await self.store.get(batch_id)
        if batch is None or batch.spec.account != account:
            raise BatchUnknown(
                f"no batch {batch_id} of this account; ended batches are kept for a limited time"
            )
        return batch

    def _begin(self, batch: Batch) -> None:
        self._background.spawn(self._follow(self._register(batch)))

    def _register(self, batch: Batch) -> Expansion:
        expansion = self._open[batch.id] = Expansion(batch, self)
        self._of_account.setdefault(batch.spec.account, set()).add(expansion)
        return expansion

    async def _follow(self, expansion: Expansion) -> None:
        await expansion.run()
        batch = expansion.batch
        del self._open[batch.id]
        others = self._of_account[batch.spec.account]
        others.discard(expansion)
        if not others:
            del self._of_account[batch.spec.account]
        log.info("batch is over", batch=batch.id, inputs=batch.inputs, cancelled=batch.cancelled)
