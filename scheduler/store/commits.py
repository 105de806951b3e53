"""Group commit: writes of concurrent callers share transactions; the event loop never waits for the database.

One thread writes. When it is free it commits everything that is queued, on a busy set after a short wait; later writes
form the next commit. Rows that
need only survive a killed process (each sync task's only row) go to the journal at once, and into the database a few
times a second, many in one statement.

Another thread checkpoints SQLite's log into the database from time to time, in parallel with the writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import structlog

from scheduler.errors import StoreError, Unavailable
from scheduler.store.additions import Addition
from scheduler.store.contract import Durability
from scheduler.store.ends import End
from scheduler.store.journal import Journal
from scheduler.store.kept import Kept
from scheduler.store.pace import Pace
from scheduler.store.rows import Row, lease_number_in
from scheduler.store.transactions import Apply, Outcome, Transactions, Write, save_rows

log = structlog.get_logger()

WRITES_PER_COMMIT: Final = 1_000
QUEUED_WRITES_MAX: Final = 1_000
"""New tasks are refused above this many waiting writes. Other writes are never refused: each of their callers waits."""

CHECKPOINT_FRAMES: Final = 4_000
"""Pages in the log (estimated) after which it is checkpointed."""
JOURNAL_S: Final = 0.25
"""Seconds for which rows stay only in the journal."""
JOURNAL_AGAIN_S: Final = 1.0
"""The same, in seconds, after the database refused them."""
SYNC_S: Final = 5.0
"""Seconds after which rows that came from the journal are synced, so that a loss of power takes no older ones."""
ENDS_S: Final = 0.001
"""Seconds for which the end of a task waits for another write: a busy set has one by then, and one commit for both."""
_LATER_S: Final = 0.02


class GroupCommit:
    """Owns the threads that write, from `start` to `stop`. All methods are called on the event loop."""

    def __init__(
        self, path: Path, open_transactions: Callable[[], Transactions], journal: Journal, kept: Kept
    ) -> None:
        self._path = path
        self._kept = kept
        self._open_transactions = open_transactions
        self._journal = journal
        self._queue: SimpleQueue[list[Write]] = SimpleQueue()
        # Rows for the next commit, by task.
        self._later: dict[str, Row] = {}
        # Ends for the next commit, which a new task may begin.
        self._ends: list[Write] = []
        self._ends_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        # The last of these rows that the writer thread was given.
        self._flushed: asyncio.Future[None] | None = None
        self._journal_timer: asyncio.TimerHandle | None = None
        self._journal_taken: asyncio.Future[None] | None = None
        self._sync_timer: asyncio.TimerHandle | None = None
        self._handed = 0
        self._stopping = False
        self._queued_all = False
        self._folding: asyncio.Future[None] | None = None
        # Why the database refused the journal's rows the last time.
        self.journal_error: BaseException | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._transactions = self._open_transactions()
        self._folder = ThreadPoolExecutor(1, thread_name_prefix="store-checkpoint")
        thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        thread.start()

    async def stop(self) -> None:
        """Commit what is queued, checkpoint the log, close."""
        await self.catch_up()
        self._flush()
        self._hand_over([])
        self._stopping = True
        for timer in (self._flush_timer, self._ends_timer, self._journal_timer, self._sync_timer):
            if timer is not None:
                timer.cancel()
        if self._folding is not None:
            await self._folding
        self._folder.shutdown()
        self._queued_all = True
        self._queue.put([])
        await self._stopped

    # -- on the event loop

    def save(self, row: Row, durability: Durability) -> asyncio.Future[None]:
        """Write a row; the future completes when the row is as durable as requested."""
        self._later.pop(row[0], None)
        future: asyncio.Future[None] = self._loop.create_future()
        self._hand_over([Write(row=row, durability=durability, future=future)])
        return future

    def save_later(self, row: Row) -> None:
        """Write a row a moment later, unless a later row of the same task comes first."""
        self._check_open()
        self._later[row[0]] = row
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(_LATER_S, self._flush)

    def record(self, row: Row) -> None:
        """Store a row so that it survives a killed process from now on. Raises `OSError`, `StoreError`."""
        self._check_open()
        self._journal.append(row)
        if self._journal_timer is None and self._journal_taken is None:
            self._journal_timer = self._loop.call_later(JOURNAL_S, self._take_journal)

    async def catch_up(self) -> None:
        """Write everything that waits now, in the journal or for the next commit, to the database, if it accepts it."""
        self._flush()
        if self._flushed is not None:
            await asyncio.wait({self._flushed})
        if self._journal_taken is not None:
            await asyncio.wait({self._journal_taken})
        if self._journal and self._journal_taken is None:
            self._take_journal()
        if self._journal_taken is not None:
            await asyncio.wait({self._journal_taken})

    def add(self, addition: Addition) -> asyncio.Future[None]:
        """Write a new task. The future has `Unavailable` when too many writes wait already."""
        future: asyncio.Future[None] = self._loop.create_future()
        try:
            self._check_queue()
        except Unavailable as error:
            future.set_exception(error)
            return future
        self._hand_over([Write(addition=addition, durability=Durability.POWER, future=future)])
        return future

    def end(self, end: End, durability: Durability, added_by: Addition | None = None) -> asyncio.Future[bool]:
        """Write the end of a task; the future has whether it is a dead letter.

        An older row of the task need not be written. `added_by`: the write of the task itself, which may still wait;
        then both are one write.
        """
        if (row := self._later.get(end.task_id)) is not None:
            if lease_number_in(row[-1]) > end.lease_number:
                self._flush()
            else:
                del self._later[end.task_id]
        future: asyncio.Future[bool] = self._loop.create_future()
        if added_by is None or not added_by.end_with(end, future):
            self._check_open()
            self._ends.append(Write(end=end, durability=durability, future=future))
            if self._ends_timer is None:
                self._ends_timer = self._loop.call_later(ENDS_S, self._ends_due)
        return future

    def _ends_due(self) -> None:
        self._ends_timer = None
        self._hand_over([])

    def apply(
        self, apply: Apply, durability: Durability, *, refusable: bool = False, rows: int = 1
    ) -> asyncio.Future[Any]:
        """Run `apply`, which writes some `rows`, in a transaction; the future has its result.

        Raises `Unavailable` when `refusable` and too many writes wait already.
        """
        if refusable:
            self._check_queue()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._hand_over([Write(apply=apply, rows=rows, durability=durability, future=future)])
        return future

    def _check_queue(self) -> None:
        if self._handed >= QUEUED_WRITES_MAX:
            raise Unavailable(f"{self._handed} writes wait for the set's disk; try again soon")

    def _hand_over(self, writes: list[Write]) -> None:
        """Queue for the writer thread, after everything queued before: writes of one task keep their order."""
        self._check_open()
        if self._ends:
            writes, self._ends = self._ends + writes, []
        if writes:
            self._handed += len(writes)
            self._queue.put(writes)

    def _check_open(self) -> None:
        if self._stopping:
            raise StoreError(f"store {self._path} is closed")

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        rows, self._later = self._later, {}
        if rows:
            writes = [Write(row=row, durability=Durability.PROCESS, future=None) for row in rows.values()]
            flushed = writes[-1].future = self._loop.create_future()
            flushed.add_done_callback(self._flush_settled)
            self._hand_over(writes)
            self._flushed = flushed

    def _flush_settled(self, flushed: asyncio.Future[None]) -> None:
        if self._flushed is flushed:
            self._flushed = None
        if not flushed.cancelled():
            flushed.exception()  # As with all rows of the timer, nobody waits for it.

    def _take_journal(self) -> None:
        if self._journal_timer is not None:
            self._journal_timer.cancel()
            self._journal_timer = None
        batch = self._journal.take()
        if batch is None:
            return
        rows = list(batch.rows.values())
        try:
            self._journal_taken = self.apply(
                lambda connection: save_rows(connection, rows, self._kept), Durability.PROCESS, rows=len(rows)
            )
        except BaseException:
            self._journal.put_back()
            raise
        self._journal_taken.add_done_callback(self._journal_settled)

    def _journal_settled(self, taken: asyncio.Future[None]) -> None:
        self._journal_taken = None
        error = self.journal_error = taken.exception()
        if error is None:
            self._journal.folded()
            if self._sync_timer is None and not self._stopping:
                self._sync_timer = self._loop.call_later(SYNC_S, self._sync)
        else:
            log.error("rows stay in the journal", store=str(self._path), error=str(error))
            self._journal.put_back()
        if self._journal and not self._stopping:
            delay_s = JOURNAL_S if error is None else JOURNAL_AGAIN_S
            self._journal_timer = self._loop.call_later(delay_s, self._take_journal)

    def _settle(self, committed: tuple[int, list[Outcome]]) -> None:
        writes, outcomes = committed
        self._handed -= writes
        for future, result, error in outcomes:
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._fold_if_due()

    def _fold_if_due(self) -> None:
        if self._transactions.frames > CHECKPOINT_FRAMES and self._folding is None and not self._stopping:
            self._transactions.frames = 0
            self._folding = self._loop.run_in_executor(self._folder, self._transactions.checkpoint)
            self._folding.add_done_callback(self._folded)

    def _folded(self, _: asyncio.Future[None]) -> None:
        self._folding = None

    def _sync(self) -> None:
        self._sync_timer = None
        self._folder.submit(self._transactions.sync)

    # -- on the writer thread

    def _run(self) -> None:
        pace = Pace()
        while True:
            writes = self._queue.get()
            wait_s = pace.wait_s(time.monotonic())
            if wait_s > 0 and not self._queued_all:
                time.sleep(wait_s)
            while len(writes) < WRITES_PER_COMMIT:
                try:
                    writes = writes + self._queue.get_nowait()
                except Empty:
                    break
            if writes:
                new_tasks = sum(write.addition is not None for write in writes)
                pace.began(new_tasks, time.monotonic())
                self._tell(self._settle, (len(writes), self._transactions.run(writes)))
            if self._queued_all and self._queue.empty():
                self._tell(self._finished, self._transactions.close())
                return

    def _finished(self, error: BaseException | None) -> None:
        if self._stopped.done():
            return
        if error is None:
            self._stopped.set_result(None)
        else:
            self._stopped.set_exception(error)

    def _tell(self, callback: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, so no caller waits any more
            self._loop.call_soon_threadsafe(callback, argument)
