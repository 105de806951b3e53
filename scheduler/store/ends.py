"""The ends of tasks in the database: their last rows and results, and what becomes of their inputs, in one
transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from scheduler.callback import callback_of
from scheduler.errors import StaleLease, StoreError
from scheduler.store import batches, callback_rows, dead_letters
from scheduler.store.contract import DeadLetterLimits, Results
from scheduler.store.kept import Kept
from scheduler.store.rows import Row, lease_number_in, read_task, results_body, task_row
from scheduler.store.sql import for_rows, pieces, queries
from scheduler.task import Task

Held = tuple[int, bytes]
"""The row number and the facts of a task in the database."""


class End:
    """A task's end, encoded: later changes of the task do not affect it. Raises `StoreError`.

    `was_added`: nothing is written of it unless the task has a row.
    """

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
        "was_added",
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
        self.was_added = False


def write_ends(
    connection: sqlite3.Connection, ends: Sequence[End], limits: DeadLetterLimits, kept: Kept
) -> list[bool | StaleLease]:
    """Write ends of different tasks in few statements.

    Returns for each whether the task is a dead letter, or why nothing of it was written.
    """
    if len({end.task_id for end in ends}) < len(ends):
        raise StoreError("two ends of one task are written together; they are written alone then")
    held: dict[str, Held] = {}
    for some in pieces(ends):
        query = for_rows("held_tasks", len(some))
        for task_id, number, facts in connection.execute(query, [end.task_id for end in some]):
            held[task_id] = number, facts
    outcomes: list[bool | StaleLease] = []
    plain: list[tuple[int, End]] = []
    for end in ends:
        known = held.get(end.task_id)
        stale = _stale(end, known)
        if stale is None and known is not None and end.dead_row is None:
            plain.append((known[0], end))
        outcomes.append(False if stale is None else stale)
    for few in pieces(plain):
        _write_plain(connection, few, held, kept)
    for at, end in enumerate(ends):
        if outcomes[at] is False and (end.dead_row is not None or end.task_id not in held):
            outcomes[at] = _write_other(connection, end, held.get(end.task_id), limits, kept)
    return outcomes


def _stale(end: End, held: Held | None) -> StaleLease | None:
    if held is None:
        if end.was_added:
            return StaleLease(f"task {end.task_id} was not accepted")
        return None
    if lease_number_in(held[1]) > end.lease_number:
        return StaleLease(f"task {end.task_id} is held by a later attempt than lease {end.lease_number}")
    return None


def _write_plain(
    connection: sqlite3.Connection, ends: Sequence[tuple[int, End]], held: dict[str, Held], kept: Kept
) -> None:
    """Write ends of tasks that have rows and do not become dead letters."""
    sql = queries()
    # Neither their accounts nor their images or names have changed.
    for number, (_, _, _, state, _, _, expires_us, facts) in ((number, end.row) for number, end in ends):
        connection.execute(sql["end_task"], (state, expires_us, facts, number))
    numbers = [number for number, _ in ends]
    taken = {}
    for number, size_bytes, blob in connection.execute(for_rows("take_inputs", len(numbers)), numbers):
        taken[number] = size_bytes, blob
    results: list[int | bytes] = []
    for number, end in ends:
        results += (number, end.results, end.results_bytes)
        grown = len(end.row[-1]) - len(held[end.task_id][1]) + end.results_bytes
        kept.add(end.account, grown - _let_go(connection, number, taken.get(number)))
    connection.execute(for_rows("set_results", len(ends)), results)
    for number, end in ends:
        _tell(connection, number, end, kept)


def _write_other(
    connection: sqlite3.Connection, end: End, held: Held | None, limits: DeadLetterLimits, kept: Kept
) -> bool:
    """Write the end of a task that may become a dead letter or has no row; returns whether it is a dead letter."""
    sql = queries()
    if end.dead_row is not None and held is not None:
        known = read_task(held[1])
        if known.dead or known.replayed_as is not None:
            # It was written before, and may have been replayed since.
            return known.dead
    dead = end.dead_row is not None and dead_letters.fits(connection, end.task_id, limits)
    row = end.dead_row if dead and end.dead_row else end.row
    number = _save(connection, row, held, kept)
    if dead:
        # It may have been written before, perhaps with other results.
        kept.add(end.account, -_results_bytes(connection, number))
    else:
        taken = connection.execute(sql["take_inputs"], (number,)).fetchone()
        kept.add(end.account, -_let_go(connection, number, None if taken is None else taken[1:]))
    connection.execute(sql["set_results"], (number, end.results, end.results_bytes))
    kept.add(end.account, end.results_bytes)
    if dead:
        if end.callback is not None:
            callback_rows.add(connection, end.callback, row[-1], kept)
        return dead_letters.count_in(connection, number, end.account, limits, kept)
    _tell(connection, number, end, kept)
    return False


def _let_go(connection: sqlite3.Connection, number: int, taken: tuple[int, str | None] | None) -> int:
    """Free the blobs of a task; return the size of its input, which was `taken`, or else of its earlier results."""
    if taken is None or taken[1] is not None:
        connection.execute(queries()["free_blobs_of_task"], {"task": number})
    return taken[0] if taken is not None else _results_bytes(connection, number)


def _results_bytes(connection: sqlite3.Connection, number: int) -> int:
    found = connection.execute(queries()["results_size"], {"task": number}).fetchone()
    return 0 if found is None else int(found[0])


def _tell(connection: sqlite3.Connection, number: int, end: End, kept: Kept) -> None:
    """Write what follows from an end: its callback, the owner of its blobs, its place in its batch."""
    if end.callback is not None:
        callback_rows.add(connection, end.callback, end.row[-1], kept)
    for name in end.blobs:
        connection.execute(queries()["add_blob"], {"name": name, "task": number})
    if end.in_batch:
        batches.count_end(connection, number)


def _save(connection: sqlite3.Connection, row: Row, held: Held | None, kept: Kept) -> int:
    """Write the row, in the place of the one that is `held`; return its number."""
    sql = queries()
    _, account, _, state, _, _, expires_us, facts = row
    kept.add(account, len(facts) - (0 if held is None else len(held[1])))
    if held is None:
        connection.execute(sql["save_tasks"], row)
        (number,) = connection.execute(sql["task_row"], {"id": row[0]}).fetchone()
        return int(number)
    connection.execute(sql["end_task"], (state, expires_us, facts, held[0]))
    return held[0]
