"""The end of a task in the database: its last row, its results, and what becomes of its input, in one transaction."""

from __future__ import annotations

import sqlite3

import msgspec

from scheduler.callback import callback_of
from scheduler.errors import StaleLease
from scheduler.store import batches, callback_rows, dead_letters
from scheduler.store.contract import DeadLetterLimits, Results
from scheduler.store.kept import Kept
from scheduler.store.rows import Row, lease_number_in, read_task, results_body, task_row
from scheduler.store.sql import queries
from scheduler.task import Task


class End:
    """A task's end, encoded: later changes of the task do not affect it. Raises `StoreError`."""

    __slots__ = (
        "account",
        "blobs",
        "callback",
        "dead_row",
        "in_batch",
        "lease_number",
        "results",
        "results_bytes",
        "row",
        "task_id",
    )

    def __init__(self, task: Task, results: Results) -> None:
        self.task_id = task.id
        self.account = task.spec.account
        self.lease_number = task.lease_number
        self.row = task_row(msgspec.structs.replace(task, dead=False) if task.dead else task)
        # If it becomes a dead letter: only the transaction knows whether there is room for its input.
        self.dead_row = task_row(task) if task.dead else None
        self.results = results_body(results)
        self.results_bytes = results.size_bytes
        self.blobs = results.blobs
        self.callback = callback_of(task)
        self.in_batch = task.batch is not None


def write_end(connection: sqlite3.Connection, end: End, limits: DeadLetterLimits, kept: Kept) -> bool:
    """Write the end; return True if the task is a dead letter. Raises `StaleLease` before the first change."""
    sql = queries()
    held = connection.execute(sql["held_task"], {"id": end.task_id}).fetchone()
    if held is not None and lease_number_in(held[1]) > end.lease_number:
        raise StaleLease(f"task {end.task_id} is held by a later attempt than lease {end.lease_number}")
    if end.dead_row is not None and held is not None:
        known = read_task(held[1])
        if known.dead or known.replayed_as is not None:
            # It was written before, and may have been replayed since.
            return known.dead
    dead = end.dead_row is not None and dead_letters.fits(connection, end.task_id, limits)
    row = end.dead_row if dead and end.dead_row else end.row
    number = _save(connection, row, held, kept)
    stdin = None if dead else connection.execute(sql["take_input"], {"task": number}).fetchone()
    if stdin is not None:
        kept.add(end.account, -stdin[0])
    else:
        # It may have been written before, perhaps with other results.
        for (size_bytes,) in connection.execute(sql["results_size"], {"task": number}):
            kept.add(end.account, -size_bytes)
    results = {"task": number, "body": end.results, "size_bytes": end.results_bytes}
    connection.execute(sql["set_results"], results)
    kept.add(end.account, end.results_bytes)
    if end.callback is not None:
        callback_rows.add(connection, end.callback, row[-1], kept)
    if dead:
        return dead_letters.count_in(connection, number, end.account, limits, kept)
    if stdin is None or stdin[1] is not None:
        connection.execute(sql["free_blobs_of_task"], {"task": number})
    for name in end.blobs:
        connection.execute(sql["add_blob"], {"name": name, "task": number})
    if end.in_batch:
        batches.count_end(connection, number)
    return False


def _save(connection: sqlite3.Connection, row: Row, held: tuple[int, bytes] | None, kept: Kept) -> int:
    """Write the row, in the place of the one that is `held`; return its number."""
    sql = queries()
    _, account, _, state, _, _, expires_us, facts = row
    kept.add(account, len(facts) - (0 if held is None else len(held[1])))
    if held is None:
        connection.execute(sql["save_tasks"], row)
        (number,) = connection.execute(sql["task_row"], {"id": row[0]}).fetchone()
        return int(number)
    # Neither its account nor its image or name has changed.
    connection.execute(
        sql["end_task"], {"state": state, "expires_us": expires_us, "facts": facts, "row": held[0]}
    )
    return held[0]
