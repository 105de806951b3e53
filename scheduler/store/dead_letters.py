"""Dead letters in the database: their inputs stay, within the bounds of each account. Called inside a transaction."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from scheduler.errors import NotDead, TaskUnknown
from scheduler.store.contract import DeadLetterLimits, DeadLetters
from scheduler.store.kept import Kept
from scheduler.store.rows import read_task, task_row
from scheduler.store.sql import queries
from scheduler.task import Task

ALL: Final = ""
"""The account whose count is that of all accounts."""


def fits(connection: sqlite3.Connection, task_id: str, limits: DeadLetterLimits) -> bool:
    """Return True if the input of the task is there, and alone within the bounds."""
    body = connection.execute(queries()["get_input"], {"id": task_id}).fetchone()
    return body is not None and limits.tasks > 0 and body[0] <= limits.size_bytes


def count_in(
    connection: sqlite3.Connection, row: int, account: str, limits: DeadLetterLimits, kept: Kept
) -> bool:
    """Count a task whose row is dead now; then let the account's oldest ones go until it is within its bounds.

    Returns False if the task itself had to go.
    """
    sql = queries()
    _add(connection, account, 1, _size_bytes(connection, row))
    stays = True
    while not _within(totals(connection, account), limits):
        oldest, facts = connection.execute(sql["oldest_dead"], {"account": account}).fetchone()
        task = read_task(facts)
        count_out(connection, oldest, account)
        kept.add(account, -_size_bytes(connection, oldest))
        _revive(connection, task, kept)
        connection.execute(sql["free_blobs_of_task"], {"task": oldest})
        connection.execute(sql["drop_input"], {"task": oldest})
        stays = stays and oldest != row
    return stays


def count_out(connection: sqlite3.Connection, row: int, account: str) -> None:
    """Count a dead letter no longer. Call it while its input is there."""
    _add(connection, account, -1, -_size_bytes(connection, row))


def replay(connection: sqlite3.Connection, task_id: str, new: Task, kept: Kept) -> Task:
    """Give the dead letter's input to a new task; return that task, or the one that replayed it before.

    Raises `NotDead` and `TaskUnknown`.
    """
    sql = queries()
    found = connection.execute(sql["get_task"], {"id": task_id}).fetchone()
    if found is None:
        raise TaskUnknown(f"no task {task_id} of this account; ended tasks are kept for a limited time")
    dead = read_task(found[0])
    if dead.replayed_as is not None:
        known = connection.execute(sql["get_task"], {"id": dead.replayed_as}).fetchone()
        if known is None:
            raise TaskUnknown(f"task {task_id} was replayed as {dead.replayed_as}, which is no longer kept")
        return read_task(known[0])
    if not dead.dead:
        raise NotDead(
            f"task {task_id} is {dead.state} and not a dead letter: only what `GET /v1/tasks?state=dead` lists can be "
            "replayed; submit the task again"
        )
    (row,) = connection.execute(sql["task_row"], {"id": task_id}).fetchone()
    written = task_row(new)
    count_out(connection, row, dead.spec.account)
    new_row = connection.execute(sql["add_tasks"], (None, *written)).lastrowid
    kept.add(new.spec.account, len(written[-1]))
    for query in ("move_input", "move_blobs"):
        connection.execute(sql[query], {"task": row, "new": new_row})
    _revive(connection, msgspec.structs.replace(dead, replayed_as=new.id), kept)
    return new


def totals(connection: sqlite3.Connection, account: str) -> DeadLetters:
    """How many dead letters the account has."""
    found = connection.execute(queries()["dead_totals"], {"account": account}).fetchone()
    return DeadLetters(*found) if found else DeadLetters(0, 0)


def _within(held: DeadLetters, limits: DeadLetterLimits) -> bool:
    return held.tasks <= limits.tasks and held.size_bytes <= limits.size_bytes


def _size_bytes(connection: sqlite3.Connection, row: int) -> int:
    (size_bytes,) = connection.execute(queries()["input_size"], {"task": row}).fetchone()
    return int(size_bytes)


def _add(connection: sqlite3.Connection, account: str, tasks: int, size_bytes: int) -> None:
    for whose in (account, ALL):
        change: dict[str, Any] = {"account": whose, "tasks": tasks, "size_bytes": size_bytes}
        connection.execute(queries()["change_dead_totals"], change)
        connection.execute(queries()["drop_dead_totals"], {"account": whose})


def _revive(connection: sqlite3.Connection, task: Task, kept: Kept) -> None:
    """Write a task that is no longer a dead letter; it is a failed one like others."""
    task.dead = False
    row = task_row(task)
    kept.add_rows(connection, [row])
    connection.execute(queries()["save_tasks"], row)
