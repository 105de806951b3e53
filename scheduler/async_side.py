"""Async tasks: from the input on disk to the results on disk, over as many attempts as the platform needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec
import structlog

from scheduler.async_entry import AsyncEntry
from scheduler.background import Background, retrieve
from scheduler.backoff import Backoff
from scheduler.clock import wall_us
from scheduler.errors import (
    BadRequest,
    DiskFull,
    ImageUnknown,
    ImageUnusable,
    SchedulerError,
    SlotLost,
    StaleLease,
    StoreError,
)
from scheduler.execution import Run
from scheduler.floor import Floor
from scheduler.image import Image
from scheduler.live import LiveTask
from scheduler.policy.retrying import is_dead_letter, runs_again
from scheduler.policy.storage import Holding
from scheduler.results import Collector, KeepLimits
from scheduler.roster import Roster
from scheduler.storage import StorageGuard
from scheduler.store.contract import Blobs, Durability, Results, Store
from scheduler.sync_side import Ended
from scheduler.task import FailedAttempt, Reason, State, Task

log = structlog.get_logger()

STORE_AGAIN: Final = Backoff(0.1, 10.0)
"""Pauses between tries to store an outcome."""


class AsyncLimits(KeepLimits, Protocol):
    """Limits of the async side. Times are seconds."""

    @property
    def async_keep_s(self) -> int: ...
    @property
    def dead_keep_s(self) -> int: ...


class AsyncSide:
    """The async tasks of one set (`scheduler.roster.Side`).

    What others see of a task stays `running` until its results are on disk. An attempt that the platform lost is
    made again after a pause, `max_attempts` in all; it is not billed. A task that failed by itself is run again, after
    a pause, only where its caller asked for that; each such attempt is billed, in the one record of the task.
    """

    def __init__(
        self,
        limits: AsyncLimits,
        store: Store,
        blobs: Blobs,
        storage: StorageGuard,
        floor: Floor,
        roster: Roster,
        ended: Ended,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self._limits = limits
        self._store = store
        self._blobs = blobs
        self._storage = storage
        self._floor = floor
        self._roster = roster
        self._ended = ended
        self._clock = clock
        self._now_us = now_us
        self._background = Background()
        self._stopping = False
        # Blobs that no row names before their task's outcome is stored.
        self.unstored: set[str] = set()

    def adopt(self, task: Task, image: Image) -> None:
        """Go on with a task that an earlier run left queued or running; an attempt that ran counts as lost."""
        entry = self.enter(task, image)
        if task.state is State.RUNNING:
            self._background.spawn(self._lost(entry, SchedulerError("the set was restarted")))
        else:
            self._floor.enter(entry)

    async def give_up(self, task: Task, state: State, reason: Reason, detail: str) -> None:
        """End a task of an earlier run without running it."""
        entry = self.enter(task, Image(task.spec.image, task.spec.image_digest, task.spec.image_digest))
        await self._give_up(entry, state, reason, detail)

    def stop(self) -> None:
        """Attempts that are lost from now on go back to the queue, for the next start of the set."""
        self._stopping = True

    async def close(self, grace_s: float) -> None:
        """Wait for outcomes to be stored; what is not stored by then runs again after the next start."""
        await self._background.stop(grace_s)

    # -- Side

    def assigned(self, entry: AsyncEntry) -> None:
        if not entry.being_written:
            self._store_start(entry.task)
        self._background.spawn(self._attempt(entry))

    def began(self, entry: AsyncEntry, run: Run) -> None:
        raise AssertionError("an async task's input is read once it has a slot")

    def not_begun(self, entry: AsyncEntry, error: SlotLost) -> None:
        raise AssertionError("an async task's attempt ends by itself")

    def queue_expired(self, entry: AsyncEntry, waited_for: str) -> None:
        raise AssertionError("an async task waits without an end")

    def give_way(self, entry: AsyncEntry) -> None:
        entry.gives_way = True
        if entry.live is not None:
            entry.live.kill(Reason.PLATFORM)

    def time_up(self, entry: AsyncEntry) -> None:
        if entry.live is not None:
            entry.live.kill(Reason.TIMEOUT)

    def cannot_run(self, entry: AsyncEntry, error: Exception) -> None:
        theirs = isinstance(error, (BadRequest, ImageUnknown, ImageUnusable))
        reason = Reason.NOT_EXECUTABLE if theirs else Reason.PLATFORM
        self._background.spawn(self._give_up(entry, State.FAILED, reason, str(error)))

    def cancel(self, entry: AsyncEntry) -> None:
        if entry.live is not None:
            entry.live.kill(Reason.CANCELLED)
        elif entry.task.state is State.QUEUED and not entry.ending:
            self._floor.leave(entry)
            self._background.spawn(
                self._give_up(entry, State.CANCELLED, Reason.CANCELLED, "cancelled before it ran")
            )

    def enter(self, task: Task, image: Image) -> AsyncEntry:
        """Make an accepted task known; it does not wait for a slot yet."""
        entry = AsyncEntry(task, image, self)
        self._roster.entries[task.id] = entry
        return entry

    def added(self, entry: AsyncEntry) -> None:
        """The task, which may be running already, is on disk."""
        entry.was_written()
        if entry.task.state is State.RUNNING and not entry.ending:
            self._store_start(entry.task)

    def refused(self, entry: AsyncEntry) -> None:
        """The task, which may be running already, could not be written: it ends, and leaves no trace."""
        entry.refuse()
        self._floor.leave(entry)
        if entry.live is not None:
            entry.live.kill(Reason.CANCELLED)
        elif entry.task.state is State.QUEUED:
            self._roster.remove(entry.task.id)

    def _store_start(self, task: Task) -> None:
        try:
            self._store.update_later(task)
        except SchedulerError as error:
            log.warning("a task's start is not stored", task=task.id, error=str(error))

    # -- attempts

    async def _attempt(self, entry: AsyncEntry) -> None:
        """From the stored input to the stored results."""
        holding = self._storage.hold(entry.task.spec.account)
        try:
            await self._hold_attempt(entry, holding)
        finally:
            holding.release()

    async def _hold_attempt(self, entry: AsyncEntry, holding: Holding) -> None:
        collector = Collector(self._blobs, self._limits, entry.task.spec.outputs, holding)
        live: LiveTask | None = None
        try:
            live = await self._begin(entry, collector)
            results = await collector.collect(live)
        except SchedulerError as error:
            if live is not None:
                live.lose(f"the attempt was lost: {error}")
                live.abandon().add_done_callback(retrieve)
            await collector.abort()
            await self._lost(entry, error)
            return
        except BaseException:
            if live is not None:
                live.close()
            raise
        # Its end may be wanted while it is being written.
        if runs_again(live.task) and await entry.is_accepted() and entry.cancel is None:
            live.lose(f"the attempt failed ({live.task.detail}), and the task is run again")
            await self._run_again(entry, live.task, results)
        else:
            await self._end(entry, live.task, results)

    async def _begin(self, entry: AsyncEntry, collector: Collector) -> LiveTask:
        slot_id = entry.slot_id
        try:
            stdin = await self._store.stdin(entry.task.id)
            if stdin is None and await entry.is_accepted():
                stdin = await self._store.stdin(entry.task.id)
            if stdin is None:
                raise StoreError("its stored input is gone")
            if entry.cancel is not None:
                raise SchedulerError("it was cancelled")
            if entry.gives_way:
                raise SchedulerError("it gives way to another task")
            work = entry.new_work(stdin.inline)
        except BaseException:
            self._floor.give_back(slot_id)
            raise
        run = self._floor.go(entry, work)
        mine = msgspec.structs.replace(entry.task, files={})
        live = LiveTask(
            mine,
            run,
            work.argv[0],
            _nothing,
            lambda: self._floor.out_of_memory(slot_id),
            clock=self._clock,
            now_us=self._now_us,
            **collector.keep(),
        )
        self._roster.began(entry, live)
        if stdin.blob is not None:
            self._background.spawn(self._feed(live, stdin.blob))
        return live

    async def _feed(self, live: LiveTask, blob: str) -> None:
        stdin = live.stdin
        assert stdin is not None
        try:
            source = self._blobs.open_read(blob)
            try:
                await stdin.send(source)
            finally:
                source.close()
        except BrokenPipeError:
            # The program no longer reads, or has ended.
            pass
        except (OSError, SchedulerError) as error:
            log.error("an input could not be read", task=live.task.id, error=str(error))
            # Before the pipe is closed, so that a program never takes half an input for a whole one.
            live.kill(Reason.PLATFORM)
            return
        stdin.close()

    async def _lost(self, entry: AsyncEntry, error: SchedulerError) -> None:
        """The platform lost the attempt: queue the task again, or end it."""
        task = entry.task
        if not await entry.is_accepted():
            self._roster.remove(task.id)
            return
        entry.live = None
        gave_way, entry.gives_way = entry.gives_way, False
        if gave_way and entry.cancel is None and not self._stopping:
            self._floor.gave_way(entry)
            await self._store_queued(task, Durability.PROCESS)
            return
        log.warning("attempt lost", task=task.id, attempt=task.attempts, reason=str(error))
        if entry.cancel is not None:
            await self._give_up(entry, State.CANCELLED, entry.cancel, "cancelled")
        elif isinstance(error, BadRequest):
            await self._give_up(entry, State.FAILED, Reason.NOT_EXECUTABLE, str(error))
        elif self._stopping:
            # The attempt was going well, so it does not count.
            task.requeue(self._now_us(), "the set stopped", attempt_counts=False)
            await self._store_queued(task, Durability.POWER)
        elif self._floor.attempt_lost(entry, str(error), disk_full=isinstance(error, DiskFull)):
            await self._store_queued(task, Durability.PROCESS)
        else:
            detail = (
                f"the platform lost every attempt (attempts: {task.lost_attempts}); the last one: {error}"
            )
            await self._give_up(entry, State.FAILED, Reason.PLATFORM, detail)

    async def _run_again(self, entry: AsyncEntry, failed: Task, results: Results) -> None:
        """The task failed by itself and asked for another attempt, which nothing of this one may reach."""
        task = entry.task
        entry.live, entry.gives_way = None, False
        assert failed.reason is not None
        task.run_again(
            FailedAttempt(
                failed.reason,
                failed.exit_code,
                failed.signal,
                failed.started_us or 0,
                failed.duration_us - task.duration_us,
                failed.cpu_us - task.cpu_us,
            )
        )
        # On disk first: what the attempt used is billed, whatever happens now.
        await self._insist(task.id, lambda: self._store_again(entry))
        # One that was cancelled meanwhile ends, though its end may not have begun.
        if entry.cancel is None:
            self._floor.run_again(entry)
        await self._delete(task, results)

    async def _delete(self, task: Task, results: Results) -> None:
        """Delete the output of an attempt that no row names."""
        try:
            await self._blobs.delete(results.blobs)
        except SchedulerError as error:
            log.warning("an attempt's output stays until it is swept", task=task.id, error=str(error))

    async def _store_again(self, entry: AsyncEntry) -> None:
        # A task that was cancelled meanwhile has its outcome stored, which this must not overwrite.
        if not entry.ending:
            await self._store.update(entry.task, Durability.POWER)

    async def _store_queued(self, task: Task, durability: Durability) -> None:
        try:
            await self._store.update(task, durability)
        except SchedulerError as error:
            # The row says `running`: after a restart that is a lost attempt, so the task is not forgotten.
            log.warning("a task's return to the queue is not stored", task=task.id, error=str(error))

    # -- ends

    async def _give_up(self, entry: AsyncEntry, state: State, reason: Reason, detail: str) -> None:
        """End a task that does not run."""
        if entry.ending:
            return
        entry.ending = True
        task = msgspec.structs.replace(entry.task)
        task.move(state)
        task.reason, task.detail = reason, detail
        task.ended_us = self._now_us()
        await self._end(entry, task, Results())

    async def _end(self, entry: AsyncEntry, task: Task, results: Results) -> None:
        """Store the outcome. It is tried again for as long as the set runs: an outcome must not be lost."""
        entry.ending = True
        if entry.refused:
            self._roster.remove(task.id)
            await self._delete(task, results)
            return
        # A batch keeps the inputs of its tasks itself, and expires with all of them.
        task.dead = is_dead_letter(task) and task.batch is None
        keep_s = self._limits.dead_keep_s if task.dead else self._limits.async_keep_s
        task.expires_us = (task.ended_us or 0) + keep_s * 1_000_000 if task.batch is None else None
        self.unstored.update(results.blobs)
        stored = await self._insist(task.id, lambda: self._store_end(task, results))
        self.unstored.difference_update(results.blobs)
        if stored:
            entry.task = task
        self._roster.remove(task.id)
        if stored:
            self._ended(task)

    async def _store_end(self, task: Task, results: Results) -> None:
        task.outcome_written(self._now_us())
        await self._store.finish(task, results)

    async def _insist(self, task_id: str, write: Callable[[], Awaitable[None]]) -> bool:
        """Write what must not be lost, again and again for as long as the set runs.

        Returns False if a newer attempt decides the outcome, or the task was refused. The sweep removes the blobs of
        this one: after a sync that failed, and a crash, a row may name them all the same.
        """
        pauses_s = iter(STORE_AGAIN)
        while True:
            try:
                await write()
                return True
            except StaleLease as error:
                log.warning("an outcome is dropped", task=task_id, reason=str(error))
                return False
            except Exception as error:
                log.error("an outcome could not be stored; trying again", task=task_id, error=str(error))
            await asyncio.sleep(next(pauses_s))


async def _nothing(task: Task) -> None:
    """An async task's outcome is recorded together with its results."""
