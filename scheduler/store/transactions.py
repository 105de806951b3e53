"""The writing connection: transactions of many callers' writes, their syncs, and checkpoints of SQLite's log.

`GroupCommit` decides which writes share a transaction, and calls both parts on threads of their own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from scheduler.errors import SchedulerError, StaleLease, StoreError
from scheduler.store import faults
from scheduler.store.additions import Addition, write_additions
from scheduler.store.contract import DeadLetterLimits, Durability
from scheduler.store.ends import End, write_ends
from scheduler.store.kept import Kept
from scheduler.store.rows import Row
from scheduler.store.sql import for_rows, queries
from scheduler.store.sync import sync_file, write_again

ROWS_PER_STATEMENT: Final = 64
_BUSY_RETRIES: Final = 500
_BUSY_PAUSE_S: Final = 0.01

Apply = Callable[[sqlite3.Connection], Any]
"""The part of a write inside the transaction. A `SchedulerError` before its first change refuses this write alone; an
error after it rolls the write back."""


class Write:
    """A write of one caller: a task's row, a new task, the end of a task, or `apply`."""

    __slots__ = ("addition", "apply", "durability", "end", "future", "row", "rows")

    def __init__(
        self,
        *,
        row: Row | None = None,
        addition: Addition | None = None,
        end: End | None = None,
        apply: Apply | None = None,
        rows: int = 1,
        durability: Durability,
        future: asyncio.Future[Any] | None,
    ) -> None:
        self.row = row
        self.addition = addition
        self.end = end
        self.apply = apply
        self.rows = rows
        self.durability = durability
        self.future = future


Outcome = tuple[asyncio.Future[Any] | None, Any, BaseException | None]


class Transactions:
    """Owns two connections: one that writes, and one that checkpoints the log in parallel.

    `frames`: pages added to the log, estimated. Set it to 0 before a checkpoint. `check_space` raises where there is
    too little space for new tasks.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
        kept: Kept,
        dead_letter_limits: DeadLetterLimits,
        check_space: Callable[[], None],
    ) -> None:
        self._path = path
        self._log_path = path.with_name(f"{path.name}-wal")
        self._kept = kept
        self._dead_letter_limits = dead_letter_limits
        self._check_space = check_space
        self._lock = threading.Lock()
        self._synchronous = ""
        self._unsynced = False
        self.frames = 0
        self._connection = connect()
        self._checkpointer = connect()
        self._checkpointer.execute("PRAGMA synchronous = FULL")
        self._switch("NORMAL")

    # -- on the writer thread

    def run(self, writes: list[Write]) -> list[Outcome]:
        """Commit the writes together, or where one of them fails, each alone."""
        try:
            return self._commit(writes)
        except Exception as error:  # on any error, callers must not wait for ever
            return [outcome for write in writes for outcome in self._failed(write, error)]

    def _commit(self, writes: list[Write]) -> list[Outcome]:
        with self._lock:
            try:
                return self._transaction(writes)
            except Exception as error:
                self._recover(error)
                logged = faults.is_sync_failure(error)
            # One bad write must not fail the others: apply each alone, in order.
            outcomes: list[Outcome] = []
            for write in writes:
                try:
                    outcomes += self._transaction([write])
                except Exception as error:
                    self._roll_back()
                    unsynced = faults.is_sync_failure(error)
                    self._unsynced = self._unsynced or unsynced
                    outcomes += self._failed(write, error, logged=logged or unsynced)
            return outcomes

    def _transaction(self, writes: list[Write]) -> list[Outcome]:
        power = any(write.durability is Durability.POWER for write in writes)
        self._switch("FULL" if power else "NORMAL")
        self._when_free("BEGIN IMMEDIATE")
        self._write_log_again()
        # New tasks first, and ends last: nothing else in this commit can come before the one, or follow the other.
        outcomes = self._add([write for write in writes if write.addition is not None])
        others = [write for write in writes if write.addition is None and write.end is None]
        at = 0
        while at < len(others):
            end = at
            while end < len(others) and end - at < ROWS_PER_STATEMENT and others[end].row is not None:
                end += 1
            if end > at:
                rows = [write.row for write in others[at:end] if write.row is not None]
                save_rows(self._connection, rows, self._kept)
                outcomes += [(write.future, None, None) for write in others[at:end]]
                at = end
            else:
                outcomes.append(self._applied(others[at]))
                at += 1
        outcomes += self._end([write for write in writes if write.end is not None])
        self._kept.settle(self._connection)
        self._connection.execute("COMMIT")
        self._kept.committed()
        self._count(writes)
        return outcomes

    def _count(self, writes: Sequence[Write]) -> None:
        rows = sum(write.rows for write in writes)
        # Neighbours share pages of the table, but each account and image has its own place in the indexes.
        self.frames += 4 + 3 * rows + sum(8 for write in writes if write.row is None)

    def _add(self, writes: list[Write]) -> list[Outcome]:
        if not writes:
            return []
        try:
            self._check_space()
        except SchedulerError as refusal:
            return [outcome for write in writes for outcome in self._failed(write, refusal)]
        additions = [write.addition for write in writes if write.addition is not None]
        for addition in additions:
            addition.take()
        write_additions(self._connection, additions, self._kept)
        outcomes: list[Outcome] = [(write.future, None, None) for write in writes]
        outcomes += [(addition.end_written, False, None) for addition in additions if addition.end_written]
        return outcomes

    def _end(self, writes: list[Write]) -> list[Outcome]:
        if not writes:
            return []
        ends = [write.end for write in writes if write.end is not None]
        written = write_ends(self._connection, ends, self._dead_letter_limits, self._kept)
        return [
            (write.future, None, outcome)
            if isinstance(outcome, StaleLease)
            else (write.future, outcome, None)
            for write, outcome in zip(writes, written, strict=True)
        ]

    def _failed(self, write: Write, error: Exception, *, logged: bool = False) -> list[Outcome]:
        """The outcomes of a write that failed. `logged`: it stands in the log, in a commit whose sync alone failed."""
        told = self._translate(error)
        if logged and isinstance(told, StoreError):
            # After a crash it may be there: nobody may take it for surely refused, and do it elsewhere as well.
            told.executed = True
        outcomes: list[Outcome] = [(write.future, None, told)]
        addition = write.addition
        if addition is not None:
            addition.take()
            if addition.end_written is not None:
                outcomes.append(
                    (addition.end_written, None, StaleLease(f"the task was not accepted: {told}"))
                )
        return outcomes

    def _applied(self, write: Write) -> Outcome:
        assert write.apply is not None
        changes = self._connection.total_changes
        try:
            return (write.future, write.apply(self._connection), None)
        except SchedulerError as refusal:
            if self._connection.total_changes != changes:
                # Half of it must not be committed: the transaction is rolled back, and the others are applied alone.
                raise
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
        self._kept.rolled_back()
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

    def _write_log_again(self) -> None:
        """Make the log sure again after a sync that failed, as nobody knows which part of it is on the disk.

        Before that, no commit may follow in the log, and nothing of it may go into the database, which would be newer
        than the log after a loss of power.
        """
        if not self._unsynced:
            return
        try:
            write_again(self._log_path)
        except OSError as error:
            raise faults.from_os(error, self._log_path) from error
        self._unsynced = False

    def close(self) -> BaseException | None:
        """Checkpoint the log and close; returns what failed."""
        try:
            with self._lock:
                failed = None
                try:
                    self._write_log_again()
                except SchedulerError as error:
                    failed = error
                self._checkpointer.close()
                # The last connection checkpoints the log and removes it; with syncing, so that nothing is lost.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.close()
                return failed
        except sqlite3.Error as error:
            return faults.from_sqlite(error, self._path)

    # -- on the checkpoint thread

    def sync(self) -> None:
        """Sync the log with the commits in it that did not do so themselves. A failure has the next commit do it."""
        try:
            sync_file(self._log_path)
        except OSError:
            with self._lock:
                self._unsynced = True

    def checkpoint(self) -> None:
        """Checkpoint most of the log in parallel with commits; then, with the lock, what these have added."""
        try:
            with self._lock:
                self._write_log_again()
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except SchedulerError:
            return
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
            self._write_log_again()
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._connection.execute(queries()["count_checkpoint"])
        except SchedulerError:
            return
        except sqlite3.Error as error:
            self._unsynced = self._unsynced or faults.is_sync_failure(error)
            self._roll_back()  # a full disk: the log may still grow, and the next checkpoint may succeed


def save_rows(connection: sqlite3.Connection, rows: Sequence[Row], kept: Kept) -> None:
    """Write tasks' rows in as few statements as possible, and count them."""
    for at in range(0, len(rows), ROWS_PER_STATEMENT):
        some = rows[at : at + ROWS_PER_STATEMENT]
        kept.add_rows(connection, some)
        connection.execute(for_rows("save_tasks", len(some)), [value for row in some for value in row])
