"""New async tasks in the database: their rows and inputs, many in a few statements.

A task may have run and ended before the commit that adds it has begun. Then that commit writes its end as well, and its
input not at all.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

from scheduler.errors import IdempotencyConflict
from scheduler.store import batches, callback_rows
from scheduler.store.contract import IDEMPOTENCY_WINDOW_US, Body, Idempotency
from scheduler.store.ends import End
from scheduler.store.kept import Kept
from scheduler.store.rows import task_row
from scheduler.store.sql import for_rows, pieces, queries
from scheduler.task import Task


class Addition:
    """A new task and its input, encoded: later changes of the task do not affect it. Raises `StoreError`."""

    __slots__ = ("_lock", "_taken", "account", "end", "end_written", "row", "stdin")

    def __init__(self, task: Task, stdin: Body) -> None:
        self.account = task.spec.account
        self.row = task_row(task)
        self.stdin = stdin
        self.end: End | None = None
        # Done once the end is on disk.
        self.end_written: asyncio.Future[Any] | None = None
        self._lock = threading.Lock()
        self._taken = False

    def end_with(self, end: End, written: asyncio.Future[Any]) -> bool:
        """Write the task's end in the same commit. Returns False if the commit has begun. On the event loop."""
        with self._lock:
            if not self._taken:
                self.end, self.end_written = end, written
            return not self._taken

    def take(self) -> None:
        """The commit begins. On the writer thread."""
        with self._lock:
            self._taken = True


def write_additions(connection: sqlite3.Connection, additions: Sequence[Addition], kept: Kept) -> None:
    """Write tasks that were taken. An id that is there already is an error."""
    (newest,) = connection.execute(queries()["newest_row"]).fetchone()
    tasks: list[tuple[Any, ...]] = []
    inputs: list[tuple[Any, ...]] = []
    results: list[tuple[Any, ...]] = []
    for number, addition in enumerate(additions, newest + 1):
        row, stdin, end = addition.row, addition.stdin, addition.end
        if end is None:
            inputs.append((number, stdin.size_bytes, stdin.inline, stdin.blob))
            _own(connection, () if stdin.blob is None else (stdin.blob,), number)
            kept.add(addition.account, len(row[-1]) + stdin.size_bytes)
        else:
            row = end.row
            results.append((number, end.results, end.results_bytes))
            _own(connection, end.blobs, number)
            kept.add(addition.account, len(row[-1]) + end.results_bytes)
        tasks.append((number, *row))
    _insert(connection, "add_tasks", tasks)
    _insert(connection, "add_inputs", inputs)
    _insert(connection, "set_results", results)
    for addition in additions:
        if addition.end is not None and addition.end.callback is not None:
            callback_rows.add(connection, addition.end.callback, addition.end.row[-1], kept)


def task_of_key(
    connection: sqlite3.Connection, addition: Addition, idempotency: Idempotency, created_us: int
) -> bytes | None:
    """Return the facts of the earlier task of this key, whose input then stays and not that of the new one; or None.

    Raises `IdempotencyConflict`.
    """
    sql = queries()
    known = connection.execute(
        sql["keyed_task"], {"account": addition.account, "key": idempotency.key}
    ).fetchone()
    if known is not None and created_us - known[1] < IDEMPOTENCY_WINDOW_US:
        idempotency.check(known[0])
        if addition.stdin.blob is not None:
            connection.execute(sql["add_free_blob"], {"name": addition.stdin.blob})
        facts: bytes = known[2]
        return facts
    if batches.keyed(connection, addition.account, idempotency.key, created_us) is not None:
        raise IdempotencyConflict
    return None


def write_under_key(
    connection: sqlite3.Connection, addition: Addition, idempotency: Idempotency, created_us: int, kept: Kept
) -> None:
    """Write the first task of a key."""
    write_additions(connection, [addition], kept)
    use = {
        "account": addition.account,
        "key": idempotency.key,
        "fingerprint": idempotency.fingerprint,
        "task_id": addition.row[0],
        "created_us": created_us,
    }
    connection.execute(queries()["set_key"], use)


def _own(connection: sqlite3.Connection, blobs: Sequence[str], number: int) -> None:
    for name in blobs:
        connection.execute(queries()["add_blob"], {"name": name, "task": number})


def _insert(connection: sqlite3.Connection, query: str, rows: Sequence[tuple[Any, ...]]) -> None:
    for some in pieces(rows):
        connection.execute(for_rows(query, len(some)), [value for row in some for value in row])
