"""Group commit: writes of concurrent callers share transactions; the event loop never waits for the database.

One thread writes. When it is free it commits everything that is queued; later writes form the next commit. Rows that
need only survive a killed process (each sync task's only row) go to the journal at once, and into the database a few
times a second, many in one statement.

Another thread checkpoints SQLite's log into the database from time to time, in parallel with the writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import structlog

from scheduler.errors import SchedulerError, StoreError, Unavailable
from scheduler.store import faults
from scheduler.store.contract import Durability
from scheduler.store.journal import Journal
from scheduler.store.rows import Row
from scheduler.store.sql import for_rows, queries

log = structlog.get_logger()

ROWS_PER_STATEMENT: Final = 64
WRITES_PER_COMMIT: Final = 1_000
QUEUED_WRITES_MAX: Final = 1_000
"""New tasks are refused above this many waiting writes. Other writes are never refused: each of their callers waits."""

CHECKPOINT_FRAMES: Final = 4_000
"""Pages in the log (estimated) after which it is checkpointed."""
JOURNAL_S: Final = 0.25
"""Seconds for which rows stay only in the journal."""
JOURNAL_AGAIN_S: Final = 1.0
"""The same, in seconds, after the database refused them."""
_LATER_S: Final = 0.02
_BUSY_RETRIES: Final = 500
_BUSY_PAUSE_S: Final = 0.01

Apply = Callable[[sqlite3.Connection], Any]
"""The part of a write inside the transaction. It must raise a `SchedulerError` before its first change."""


class Write:
    """A write of one caller: a task's row, or `apply`."""

    __slots__ = ("apply", "durability", "future", "row", "rows")

    def __init__(
        self,
        *,
        row: Row | None = None,
        apply: Apply | None = None,
        rows: int = 1,
        durability: Durability,
        future: asyncio.Future[Any] | None,
    ) -> None:
        self.row = row
        self.apply = apply
        self.rows = rows
        self.durability = durability
        self.future = future


Outcome = tuple[asyncio.Future[Any] | None, Any, BaseException | None]


class GroupCommit:
    """Owns the writing connection, from `start` to `stop`. All methods are called on the event loop."""

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection], journal: Journal) -> None:
        self._path = path
        self._connect = connect
        self._journal = journal
        self._lock = threading.Lock()
        self._queue: SimpleQueue[list[Write]] = SimpleQueue()
        self._pending: list[Write] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._journal_timer: asyncio.TimerHandle | None = None
        self._journal_taken: asyncio.Future[None] | None = None
        self._handed = 0
        self._frames = 0
        self._synchronous = ""
        self._unsynced = False
        self._stopping = False
        self._queued_all = False
        self._folding: asyncio.Future[None] | None = None
        # Why the database refused the journal's rows the last time.
        self.journal_error: BaseException | None = None
        self.commits = 0
        self.rows = 0
        self.checkpoints = 0

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._connection = self._connect()
        self._checkpointer = self._connect()
        self._checkpointer.execute("PRAGMA synchronous = FULL")
        self._switch("NORMAL")
        self._folder = ThreadPoolExecutor(1, thread_name_prefix="store-checkpoint")
        thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        thread.start()

    async def stop(self) -> None:
        """Commit what is queued, checkpoint the log, close."""
        await self.catch_up()
        if self._pending:
            self._hand_over([])
        self._stopping = True
        for timer in (self._flush_timer, self._journal_timer):
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
        future: asyncio.Future[None] = self._loop.create_future()
        self._hand_over([Write(row=row, durability=durability, future=future)])
        return future

    def save_later(self, row: Row) -> None:
        """Write a row with the next commit."""
        self._check_open()
        self._pending.append(Write(row=row, durability=Durability.PROCESS, future=None))
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
        if self._pending:
            await asyncio.wait({self.apply(lambda _: None, Durability.PROCESS)})
        if self._journal_taken is not None:
            await asyncio.wait({self._journal_taken})
        if self._journal and self._journal_taken is None:
            self._take_journal()
        if self._journal_taken is not None:
            await asyncio.wait({self._journal_taken})

    def apply(
        self, apply: Apply, durability: Durability, *, refusable: bool = False, rows: int = 1
    ) -> asyncio.Future[Any]:
        """Run `apply`, which writes some `rows`, in a transaction; the future has its result.

        Raises `Unavailable` when `refusable` and too many writes wait already.
        """
        if refusable and self._handed >= QUEUED_WRITES_MAX:
            raise Unavailable(f"{self._handed} writes wait for the set's disk; try again soon")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._hand_over([Write(apply=apply, rows=rows, durability=durability, future=future)])
        return future

    def _hand_over(self, writes: list[Write]) -> None:
        """Queue for the writer thread, after everything queued before: writes of one task keep their order."""
        self._check_open()
        if self._pending:
            writes = self._pending + writes
            self._pending = []
        self._handed += len(writes)
        self._queue.put(writes)

    def _check_open(self) -> None:
        if self._stopping:
            raise StoreError(f"store {self._path} is closed")

    def _flush(self) -> None:
        self._flush_timer = None
        if self._pending:
            self._hand_over([])

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
                lambda connection: save_rows(connection, rows), Durability.PROCESS, rows=len(rows)
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
        else:
            log.error("rows stay in the journal", store=str(self._path), error=str(error))
            self._journal.put_back()
        if self._journal and not self._stopping:
            delay_s = JOURNAL_S if error is None else JOURNAL_AGAIN_S
            self._journal_timer = self._loop.call_later(delay_s, self._take_journal)

    def _settle(self, outcomes: list[Outcome]) -> None:
        self._handed -= len(outcomes)
        for future, result, error in outcomes:
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._fold_if_due()

    def _fold_if_due(self) -> None:
        if self._frames > CHECKPOINT_FRAMES and self._folding is None and not self._stopping:
            self._frames = 0
            self._folding = self._loop.run_in_executor(self._folder, self._checkpoint)
            self._folding.add_done_callback(self._folded)

    def _folded(self, _: asyncio.Future[None]) -> None:
        self._folding = None

    # -- on the writer thread

    def _run(self) -> None:
        while True:
            writes = self._queue.get()
            while len(writes) < WRITES_PER_COMMIT:
                try:
                    writes = writes + self._queue.get_nowait()
                except Empty:
                    break
            if writes:
                self._tell(self._settle, self._outcomes(writes))
            if self._queued_all and self._queue.empty():
                self._tell(self._finished, self._close())
                return

    def _finished(self, error: BaseException | None) -> None:
        if self._stopped.done():
            return
        if error is None:
            self._stopped.set_result(None)
        else:
            self._stopped.set_exception(error)

    def _close(self) -> BaseException | None:
        try:
            with self._lock:
                self._checkpointer.close()
                # The last connection checkpoints the log and removes it; with syncing, so that nothing is lost.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.close()
        except sqlite3.Error as error:
            return faults.from_sqlite(error, self._path)
        return None

    def _tell(self, callback: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, so no caller waits any more
            self._loop.call_soon_threadsafe(callback, argument)

    def _outcomes(self, writes: list[Write]) -> list[Outcome]:
        try:
            return self._commit(writes)
        except Exception as error:  # on any error, callers must not wait for ever
            return [(write.future, None, self._translate(error)) for write in writes]

    def _commit(self, writes: list[Write]) -> list[Outcome]:
        with self._lock:
            try:
                return self._transaction(writes)
            except Exception as error:
                self._recover(error)
            # One bad write must not fail the others: apply each alone, in order.
            outcomes: list[Outcome] = []
            for write in writes:
                try:
                    outcomes += self._transaction([write])
                except Exception as error:
                    self._roll_back()
                    self._unsynced = self._unsynced or faults.is_sync_failure(error)
                    outcomes.append((write.future, None, self._translate(error)))
            return outcomes

    def _transaction(self, writes: list[Write]) -> list[Outcome]:
        if self._unsynced:
            self._sync_all()
        power = any(write.durability is Durability.POWER for write in writes)
        self._switch("FULL" if power else "NORMAL")
        self._when_free("BEGIN IMMEDIATE")
        outcomes: list[Outcome] = []
        at = 0
        while at < len(writes):
            end = at
            while end < len(writes) and end - at < ROWS_PER_STATEMENT and writes[end].row is not None:
                end += 1
            if end > at:
                save_rows(self._connection, [write.row for write in writes[at:end] if write.row is not None])
                outcomes += [(write.future, None, None) for write in writes[at:end]]
                at = end
            else:
                outcomes.append(self._applied(writes[at]))
                at += 1
        self._connection.execute("COMMIT")
        self._count(writes)
        return outcomes

    def _count(self, writes: Sequence[Write]) -> None:
        self.commits += 1
        rows = sum(write.rows for write in writes)
        self.rows += rows
        # Neighbours share pages of the table, but each account and image has its own place in the indexes.
        self._frames += 4 + 3 * rows + sum(8 for write in writes if write.apply is not None)

    def _applied(self, write: Write) -> Outcome:
        assert write.apply is not None
        try:
            return (write.future, write.apply(self._connection), None)
        except SchedulerError as refusal:
            return (write.future, None, refusal)

    def _switch(self, synchronous: str) -> None:
        """Set the mode: FULL syncs the log at each commit, NORMAL does not. Call it only between transactions."""
        if synchronous != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous

    def _when_free(self, statement: str) -> None:
        """Wait a while for another program (a backup, an operator's shell) that holds the database."""
        for retry in range(_BUSY_RETRIES + 1):
            try:
                self._connection.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorname", "") != "SQLITE_BUSY" or retry == _BUSY_RETRIES:
                    raise
            time.sleep(_BUSY_PAUSE_S)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._synchronous = ""

    def _recover(self, error: Exception) -> None:
        self._roll_back()
        if faults.is_sync_failure(error):
            self._unsynced = True
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            # A log that starts from the beginning is overwritten, and needs no more space.
            self._fold()

    def _translate(self, error: Exception) -> BaseException:
        if isinstance(error, sqlite3.Error):
            translated = faults.from_sqlite(error, self._path)
            translated.__cause__ = error
            return translated
        return error

    def _sync_all(self) -> None:
        """Copy the log into the database, which syncs: after a failed sync an unknown part of the log is on disk."""
        _, in_log, folded = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if in_log != folded:
            raise StoreError(f"store {self._path}: a sync failed, and the log could not be made safe yet")
        self._unsynced = False

    # -- on the checkpoint thread

    def _checkpoint(self) -> None:
        """Checkpoint most of the log in parallel with commits; then, with the lock, what these have added."""
        try:
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            if faults.is_sync_failure(error):
                with self._lock:
                    self._unsynced = True
            return
        with self._lock:
            self._fold()

    def _fold(self) -> None:
        """Copy the log into the database, and let the next write start a new log: done here because that syncs."""
        try:
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            _count_checkpoint(self._connection)
            self.checkpoints += 1
        except sqlite3.Error as error:
            self._unsynced = self._unsynced or faults.is_sync_failure(error)
            self._roll_back()  # a full disk: the log may still grow, and the next checkpoint may succeed


def save_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Write tasks' rows in as few statements as possible."""
    for at in range(0, len(rows), ROWS_PER_STATEMENT):
        some = rows[at : at + ROWS_PER_STATEMENT]
        connection.execute(for_rows("save_tasks", len(some)), [value for row in some for value in row])


def _count_checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute(queries()["count_checkpoint"])
