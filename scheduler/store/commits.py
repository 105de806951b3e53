"""Group commit: writes of concurrent callers share transactions; the event loop never waits for the disk.

One connection writes, under one lock, from two places:

- Rows that need only survive a killed process (every sync task's only row) are gathered during one round of the event
  loop and then committed right there, in one statement: some 30 µs without a sync, which is less than handing them to
  another thread and being woken by it.
- All else, and those rows too whenever earlier writes are still under way or the disk has just been slow, goes to the
  writer thread. It commits whatever is queued as soon as it is free; what comes meanwhile is the next commit.

A third thread folds the log into the database from time to time. While it does, all writes go to the writer thread,
since the disk is busy and a commit may have to sync the beginning of a new log.
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

from scheduler.errors import SchedulerError, StoreError, Unavailable
from scheduler.store import faults
from scheduler.store.contract import Durability
from scheduler.store.rows import Row
from scheduler.store.sql import for_rows, queries

ROWS_PER_STATEMENT: Final = 64
WRITES_PER_COMMIT: Final = 1_000
QUEUED_WRITES_MAX: Final = 1_000
"""New tasks are refused above this many waiting writes. Other writes never are: their callers wait, one write each."""

CHECKPOINT_FRAMES: Final = 4_000
"""Pages in the log (estimated) after which it is folded into the database."""
_SLOW_COMMIT_S: Final = 0.005
_AVOID_LOOP_S: Final = 1.0
_BUSY_RETRIES: Final = 500
_BUSY_PAUSE_S: Final = 0.01

Apply = Callable[[sqlite3.Connection], Any]
"""What a write does inside the transaction. A `SchedulerError` must be raised before its first change."""


class Write:
    """One caller's write: a task's row, or `apply`."""

    __slots__ = ("apply", "durability", "future", "row")

    def __init__(
        self,
        *,
        row: Row | None = None,
        apply: Apply | None = None,
        durability: Durability,
        future: asyncio.Future[Any] | None,
    ) -> None:
        self.row = row
        self.apply = apply
        self.durability = durability
        self.future = future


Outcome = tuple[asyncio.Future[Any] | None, Any, BaseException | None]


class GroupCommit:
    """Owns the writing connection, from `start` to `stop`. All methods are called on the event loop."""

    def __init__(
        self, path: Path, connect: Callable[[], sqlite3.Connection], *, on_loop: bool = True
    ) -> None:
        self._path = path
        self._connect = connect
        self._on_loop = on_loop
        self._lock = threading.Lock()
        self._queue: SimpleQueue[list[Write]] = SimpleQueue()
        self._pending: list[Write] = []
        self._flush_called = False
        self._handed = 0
        self._avoid_loop_until = 0.0
        self._frames = 0
        self._synchronous = ""
        self._unsynced = False
        self._stopping = False
        self._queued_all = False
        self._folding: asyncio.Future[None] | None = None
        self.commits = 0
        self.commits_on_loop = 0
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
        # The first write after opening starts a log, which syncs its header: not on the loop.
        await self.apply(
            lambda connection: connection.execute(queries()["count_checkpoint"]), Durability.POWER
        )

    async def stop(self) -> None:
        """Commit what is queued, fold the log in, close."""
        if self._pending:
            self._hand_over([])
        self._stopping = True
        if self._folding is not None:
            await self._folding
        self._folder.shutdown()
        self._queued_all = True
        self._queue.put([])
        await self._stopped

    # -- on the event loop

    def save(self, row: Row, durability: Durability) -> asyncio.Future[None]:
        """Write a row; the future ends when it is as durable as asked."""
        future: asyncio.Future[None] = self._loop.create_future()
        write = Write(row=row, durability=durability, future=future)
        if durability is Durability.PROCESS:
            self._gather(write)
        else:
            self._hand_over([write])
        return future

    def save_later(self, row: Row) -> None:
        """Write a row with the next commit."""
        self._gather(Write(row=row, durability=Durability.PROCESS, future=None))

    def apply(self, apply: Apply, durability: Durability, *, refusable: bool = False) -> asyncio.Future[Any]:
        """Run `apply` in a transaction; the future has what it returned.

        Raises `Unavailable` when `refusable` and too many writes wait already.
        """
        if refusable and self._handed >= QUEUED_WRITES_MAX:
            raise Unavailable(f"{self._handed} writes wait for the set's disk; try again soon")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._hand_over([Write(apply=apply, durability=durability, future=future)])
        return future

    def _gather(self, write: Write) -> None:
        if self._stopping:
            raise StoreError(f"store {self._path} is closed")
        self._pending.append(write)
        if not self._flush_called:
            self._flush_called = True
            self._loop.call_soon(self._flush)

    def _hand_over(self, writes: list[Write]) -> None:
        """To the writer thread, behind all that was gathered before: writes of one task keep their order."""
        if self._stopping:
            raise StoreError(f"store {self._path} is closed")
        if self._pending:
            writes = self._pending + writes
            self._pending = []
        self._handed += len(writes)
        self._queue.put(writes)

    def _flush(self) -> None:
        self._flush_called = False
        writes = self._pending
        if not writes:
            return
        if self._may_commit_here(writes) and self._lock.acquire(blocking=False):
            began = time.perf_counter()
            try:
                self._save_rows(writes)
            except Exception:  # the writer thread tries again, and tells the callers if that fails too
                pass
            else:
                self._pending = []
                self.commits_on_loop += 1
                self._count(writes)
            finally:
                self._lock.release()
            if time.perf_counter() - began > _SLOW_COMMIT_S:
                self._avoid_loop_until = time.monotonic() + _AVOID_LOOP_S
            if not self._pending:
                for write in writes:
                    if write.future is not None and not write.future.done():
                        write.future.set_result(None)
                self._fold_if_due()
                return
        self._hand_over([])

    def _may_commit_here(self, writes: list[Write]) -> bool:
        return (
            self._on_loop
            and self._handed == 0
            and self._folding is None
            and len(writes) <= ROWS_PER_STATEMENT
            and not self._unsynced
            and time.monotonic() >= self._avoid_loop_until
        )

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

    # -- on either, holding the lock

    def _save_rows(self, writes: Sequence[Write]) -> None:
        values: list[Any] = []
        for write in writes:
            assert write.row is not None
            values += write.row
        self._connection.execute(for_rows("save_tasks", len(writes)), values)

    def _count(self, writes: Sequence[Write]) -> None:
        self.commits += 1
        self.rows += len(writes)
        # Neighbours share pages of the table, but each account and image has its own place in the indexes.
        self._frames += 4 + 3 * len(writes) + sum(8 for write in writes if write.apply is not None)

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
                # As the last connection it folds the log in and removes it; syncing, so that nothing is lost by it.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.close()
        except sqlite3.Error as error:
            return faults.from_sqlite(error, self._path)
        return None

    def _tell(self, callback: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(callback, argument)

    def _outcomes(self, writes: list[Write]) -> list[Outcome]:
        try:
            return self._commit(writes)
        except Exception as error:  # whatever it was, nobody must wait for ever
            return [(write.future, None, self._translate(error)) for write in writes]

    def _commit(self, writes: list[Write]) -> list[Outcome]:
        with self._lock:
            try:
                return self._transaction(writes)
            except Exception as error:
                self._recover(error)
            # One bad write must not fail its neighbours: each alone, in order.
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
                self._save_rows(writes[at:end])
                outcomes += [(write.future, None, None) for write in writes[at:end]]
                at = end
            else:
                outcomes.append(self._applied(writes[at]))
                at += 1
        self._connection.execute("COMMIT")
        self._count(writes)
        if power:
            self._switch("NORMAL")  # as the event loop expects it
        return outcomes

    def _applied(self, write: Write) -> Outcome:
        assert write.apply is not None
        try:
            return (write.future, write.apply(self._connection), None)
        except SchedulerError as refusal:
            return (write.future, None, refusal)

    def _switch(self, synchronous: str) -> None:
        """FULL syncs the log at each commit, NORMAL does not. Only between transactions."""
        if synchronous != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous

    def _when_free(self, statement: str) -> None:
        """Only a foreign program (a backup, an operator's shell) can hold the database: wait for it a while."""
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
            self._switch("NORMAL")
        except sqlite3.Error:
            self._synchronous = ""

    def _recover(self, error: Exception) -> None:
        self._roll_back()
        if faults.is_sync_failure(error):
            self._unsynced = True
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            # A log that starts anew is overwritten, and needs no more space.
            self._fold()

    def _translate(self, error: Exception) -> BaseException:
        if isinstance(error, sqlite3.Error):
            translated = faults.from_sqlite(error, self._path)
            translated.__cause__ = error
            return translated
        return error

    def _sync_all(self) -> None:
        """After a failed sync nobody knows what of the log is on disk: copy it into the database, which syncs."""
        _, in_log, folded = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if in_log != folded:
            raise StoreError(f"store {self._path}: a sync failed, and the log could not be made safe yet")
        self._unsynced = False

    # -- on the checkpoint thread

    def _checkpoint(self) -> None:
        """The long part beside the writer's commits; then, with the lock, what these added meanwhile."""
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
        """Copy the log into the database, and let the next write begin it anew: here, because that syncs."""
        try:
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            _count_checkpoint(self._connection)
            self.checkpoints += 1
        except sqlite3.Error as error:
            self._unsynced = self._unsynced or faults.is_sync_failure(error)
            self._roll_back()  # a full disk: the log goes on growing where it can; the next time may do


def _count_checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute(queries()["count_checkpoint"])
