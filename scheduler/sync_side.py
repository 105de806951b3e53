"""Sync tasks: a caller waits for a slot, then reads the output; its going away ends the task."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

import structlog

from scheduler.background import Background
from scheduler.clock import wall_us
from scheduler.errors import (
    DiskFull,
    Draining,
    FilesNotKept,
    GaveWay,
    NotRecorded,
    QueueTimeout,
    SchedulerError,
    SlotLost,
    StoreError,
    TaskCancelled,
)
from scheduler.excerpt import Excerpt
from scheduler.execution import Run
from scheduler.floor import Floor
from scheduler.image import Image
from scheduler.live import LiveTask
from scheduler.moments import Moments
from scheduler.outputs import FileLimits, OutputFiles
from scheduler.policy.records import Refusals
from scheduler.roster import Entry, Roster, Side
from scheduler.storage import StorageGuard
from scheduler.store.contract import Blobs, Store
from scheduler.task import Reason, State, Task, TaskIds, TaskSpec
from scheduler.usage import UsageRecords

log = structlog.get_logger()


GIVE_WAYS_MOST: Final = 3
"""How often a synchronous spare task starts again after it gave way, before its caller is told."""


class Ended(Protocol):
    """Called with every task whose outcome is recorded."""

    def __call__(self, task: Task) -> None: ...


class SyncEntry(Entry):
    """A sync task that waits or runs.

    Its caller waits for `started`: for its slot, or with `to_first_news` for its program's first output or end.
    """

    __slots__ = ("cancelled", "gave_way", "gives_way", "started", "to_first_news")

    def __init__(self, task: Task, image: Image, side: Side[SyncEntry], queue_timeout_s: float) -> None:
        super().__init__(task, image, side)
        self.queue_timeout_s = queue_timeout_s
        self.started: asyncio.Future[None] | None = None
        self.to_first_news = False
        # Its running attempt is being killed, so that a normal task has its room; and how often that happened before.
        self.gives_way = False
        self.gave_way = 0
        # Its owner ended it before it ran, and that is being recorded.
        self.cancelled = False


class SyncSide:
    """The sync tasks of one set (`scheduler.roster.Side`). A task that the platform lost is not billed."""

    def __init__(
        self,
        limits: FileLimits,
        store: Store,
        blobs: Blobs,
        storage: StorageGuard,
        floor: Floor,
        roster: Roster,
        ids: TaskIds,
        ended: Ended,
        refusals: Refusals,
        *,
        keep_s: int,
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self._limits = limits
        self._blobs = blobs
        self._storage = storage
        self._floor = floor
        self._roster = roster
        self._ids = ids
        self._ended = ended
        self._clock = clock
        self._now_us = now_us
        self._usage = UsageRecords(store, keep_s, refusals, clock=clock)
        self._background = Background()
        self._refuses = False

    def check(self) -> None:
        """Raise when no task could be run and recorded now: `DiskFull`, `StoreError`."""
        self._usage.check()

    async def start(
        self, spec: TaskSpec, image: Image, stdin: bytes | None, *, queue_timeout_s: float, stream: bool
    ) -> LiveTask:
        """See `Manager.start`."""
        return await self._slot_for(self._entry(spec, image, stdin, stream, queue_timeout_s))

    async def run(
        self,
        spec: TaskSpec,
        image: Image,
        stdin: bytes,
        *,
        queue_timeout_s: float,
        head_bytes: int,
        stream: bool,
    ) -> tuple[LiveTask, bytes, bool]:
        """See `Manager.run`."""
        entry = self._entry(spec, image, stdin, stream, queue_timeout_s)
        entry.to_first_news = True
        lost: SlotLost | None = None
        while True:
            try:
                live = await self._slot_for(entry, lost)
            except SchedulerError as error:
                if lost is not None and not error.executed:
                    # A program has begun, whatever prevents another run. (Other callers may share the error object.)
                    known = copy.copy(error)
                    known.executed = True
                    raise known from error
                raise
            try:
                head, ended = await live.head(head_bytes)
                if ended and (live.handed_over or entry.gives_way):
                    # A slot that was lost looks like the end of its output: the caller has seen nothing yet.
                    await live.finish()
                return live, head, ended
            except (DiskFull, StoreError) as error:
                raise await self._files_lost(live, error) from error
            except SlotLost as error:
                lost = error
                live.close()
                entry.live = None
                entry.task.stdout = entry.task.stderr = Excerpt()
            except NotRecorded:
                raise
            except BaseException:
                self.abandon(live)
                raise

    async def finish(self, live: LiveTask) -> Task:
        """See `Manager.finish`."""
        try:
            await live.finish()
        except SlotLost as error:
            raise await self._lost(live.task, error) from error
        except (DiskFull, StoreError) as error:
            raise await self._files_lost(live, error) from error
        except asyncio.CancelledError:
            # The record, which may have been under way, is not the caller's to break off.
            self.abandon(live)
            raise
        return live.task

    def abandon(self, live: LiveTask) -> None:
        """See `Manager.abandon`."""
        self._background.spawn(self._abandoned(live))

    def refuse(self) -> None:
        """Refuse new callers and those whose tasks have not begun, as the set is draining; what runs goes on."""
        self._refuses = True
        for entry in self._entries():
            if entry.started is not None and entry.live is None and not entry.started.done():
                self._floor.leave(entry)
                entry.started.set_exception(Draining())

    def accept(self) -> None:
        """Take callers again after `refuse`."""
        self._refuses = False

    async def close(self, grace_s: float) -> None:
        """Wait for the records of what was ended."""
        # Callers that were in the middle of something record its end themselves.
        mine = [self._roster.removal_of(entry.task.id) for entry in self._entries()]
        if mine:
            await asyncio.wait(mine, timeout=grace_s)
        await self._background.stop(grace_s)

    # -- Side

    def assigned(self, entry: SyncEntry) -> None:
        raise AssertionError("the floor starts a sync task's work itself")

    def not_begun(self, entry: SyncEntry, error: SlotLost) -> None:
        # Its program was never started, so even a streaming caller may go on waiting.
        if not self._try_again(entry, error):
            lost = SlotLost(f"no slot could take the task: {error}")
            lost.executed = False
            self.cannot_run(entry, lost)

    def began(self, entry: SyncEntry, run: Run) -> None:
        slot_id = entry.slot_id
        assert entry.work is not None
        record: Callable[[Task], Awaitable[None]] = self._record
        files = None
        if entry.task.spec.outputs:
            spec = entry.task.spec
            files = OutputFiles(self._blobs, self._limits, spec.outputs, self._storage.hold(spec.account))
            record = partial(self._record, files=files)
        live = LiveTask(
            entry.task,
            run,
            entry.work.argv[0],
            record,
            lambda: self._floor.out_of_memory(slot_id),
            files=files,
            clock=self._clock,
            now_us=self._now_us,
        )
        self._roster.began(entry, live)
        started = entry.started
        if started is None or started.done():
            # Its caller has gone away since the decision.
            self.abandon(live)
        elif entry.to_first_news:
            run.wake(started)
        else:
            started.set_result(None)

    def cannot_run(self, entry: SyncEntry, error: Exception) -> None:
        if entry.started is not None and not entry.started.done():
            entry.started.set_exception(error)

    def queue_expired(self, entry: SyncEntry, waited_for: str) -> None:
        message = f"no slot became free within queue_timeout_s ({entry.queue_timeout_s:g} s): {waited_for}"
        self.cannot_run(entry, QueueTimeout(message))

    def give_way(self, entry: SyncEntry) -> None:
        if entry.live is not None:
            entry.gives_way = True
            entry.live.kill(Reason.PLATFORM)

    def time_up(self, entry: SyncEntry) -> None:
        if entry.live is not None:
            entry.live.kill(Reason.TIMEOUT)

    def cancel(self, entry: SyncEntry) -> None:
        if entry.live is not None:
            entry.live.kill(Reason.CANCELLED)
        elif entry.task.state is State.QUEUED and not entry.cancelled:
            entry.cancelled = True
            self._floor.leave(entry)
            self.cannot_run(entry, TaskCancelled())
            self._end(entry.task, State.CANCELLED, Reason.CANCELLED, "cancelled before it ran")

    # -- waiting for a slot

    def _entries(self) -> list[SyncEntry]:
        return [entry for entry in self._roster.entries.values() if isinstance(entry, SyncEntry)]

    def _entry(
        self, spec: TaskSpec, image: Image, stdin: bytes | None, stream: bool, queue_timeout_s: float
    ) -> SyncEntry:
        if self._refuses:
            raise Draining
        self._usage.check()
        if spec.outputs:
            # Better to refuse it now than after it has run.
            self._blobs.check_space()
        task = Task(self._ids.new(), spec, self._now_us())
        if stdin is not None:
            task.stdin_bytes = len(stdin)
            task.moments = Moments(0)
        entry = SyncEntry(task, image, self, queue_timeout_s)
        self._floor.check(entry.pool, entry.task.spec.timeout_s)
        entry.work = entry.new_work(stdin, stream=stream)
        self._roster.entries[task.id] = entry
        return entry

    async def _slot_for(self, entry: SyncEntry, lost: SlotLost | None = None) -> LiveTask:
        """The task in its slot. `lost`: how its last attempt ended, which is raised where it may have no other."""
        started = entry.started = asyncio.get_running_loop().create_future()
        try:
            if lost is None:
                self._floor.enter(entry)
            elif not self._try_again(entry, lost):
                raise lost
            # Raises if there is no slot.
            await started
            assert entry.live is not None
            return entry.live
        except asyncio.CancelledError:
            self._caller_left(entry, started)
            raise
        except SlotLost as error:
            raise await self._lost(entry.task, error) from error
        except Exception:
            if not entry.cancelled:
                self._roster.remove(entry.task.id)
            raise

    def _caller_left(self, entry: SyncEntry, started: asyncio.Future[None]) -> None:
        self._floor.leave(entry)
        if entry.live is not None:
            self.abandon(entry.live)
            return
        self._roster.remove(entry.task.id)
        if started.done() and not started.cancelled():
            # The outcome arrived in the same moment; its caller has left.
            started.exception()

    def _try_again(self, entry: SyncEntry, lost: SlotLost) -> bool:
        if self._refuses or entry.cancel is not None:
            return False
        if not entry.gives_way:
            return self._floor.attempt_lost(entry, str(lost))
        if entry.gave_way == GIVE_WAYS_MOST:
            return False
        entry.gives_way = False
        entry.gave_way += 1
        self._floor.gave_way(entry)
        return True

    # -- ends

    async def _record(self, task: Task, files: OutputFiles | None = None) -> None:
        task.outcome_written(self._now_us())
        try:
            await self._usage.write(task, None if files is None else files.results())
        except NotRecorded:
            # A row that was written before its reader had everything goes on naming its files.
            if self._roster.remove(task.id) and files is not None:
                await files.forget()
            raise
        finally:
            if files is not None:
                files.holding.release()
        if self._roster.remove(task.id):
            self._ended(task)

    async def _abandoned(self, live: LiveTask) -> None:
        try:
            await live.abandon()
        except SlotLost as error:
            await self._lost(live.task, error)
        except (DiskFull, StoreError) as error:
            await self._files_lost(live, error)
        except NotRecorded:
            # It has been logged with all its facts; no caller is left to raise it to.
            pass

    async def _files_lost(self, live: LiveTask, error: SchedulerError) -> FilesNotKept:
        """Handle output files that were not kept, which is not the task's fault. Returns the error for its caller."""
        lost = FilesNotKept(
            f"the task ran, but its output files could not be kept; it is not billed: {error}"
        )
        await self._lost(live.task, lost)
        return lost

    async def _lost(self, task: Task, error: SchedulerError) -> SchedulerError:
        """The platform has lost it for good: its row says so, and no usage is recorded. Returns the error for its
        caller."""
        entry = self._roster.entries.get(task.id)
        state, reason = State.FAILED, Reason.PLATFORM
        if isinstance(entry, SyncEntry) and entry.gives_way:
            error, reason = GaveWay(), Reason.GAVE_WAY
            if entry.cancel is not None:
                state, reason = State.CANCELLED, entry.cancel
        if entry is not None and not task.ended:
            # A caller who leaves meanwhile does not break the record off.
            await asyncio.shield(self._end(task, state, reason, str(error)))
        return error

    def _end(self, task: Task, state: State, reason: Reason, detail: str) -> asyncio.Task[None]:
        task.move(state)
        task.reason, task.detail = reason, detail
        task.ended_us = self._now_us()
        return self._background.spawn(self._write_end(task))

    async def _write_end(self, task: Task) -> None:
        try:
            await self._record(task)
        except NotRecorded as error:
            log.warning("the end of a task that used nothing is not recorded", task=task.id, error=str(error))
