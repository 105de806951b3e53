"""Callbacks in the database: written with the end of their task, and after each try. Called inside a transaction."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from scheduler.callback import Callback, CallbackState
from scheduler.errors import CallbackUnreadable
from scheduler.store.sql import queries

MOST_FAILED: Final = 1_000
"""Failed callbacks that are kept of one account; those of the oldest tasks go first."""

_encode = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Callback)


def add(connection: sqlite3.Connection, callback: Callback, facts: bytes) -> None:
    """Add the callback of a task that has just ended, with the facts of the task's row. May be repeated."""
    connection.execute(queries()["add_callback"], _values(callback) | {"facts": facts})


def save(connection: sqlite3.Connection, callback: Callback) -> None:
    """Write what became of a callback. Of an account's failed ones only the newest stay."""
    sql = queries()
    connection.execute(sql["save_callback"], _values(callback))
    if callback.state is CallbackState.FAILED:
        bound = {"account": callback.account, "most": MOST_FAILED}
        connection.execute(sql["drop_failed_callbacks"], bound)


def read(record: bytes) -> Callback:
    """Decode a row's record. Raises `CallbackUnreadable`."""
    try:
        return _decoder.decode(record)
    except msgspec.MsgspecError as error:
        raise CallbackUnreadable(f"a callback's row cannot be read: {error}") from error


def fail_unreadable(connection: sqlite3.Connection, task_id: str, now_us: int, expires_us: int) -> None:
    """End a callback whose row, or whose task's, cannot be read: another record takes its place, without an address.

    Otherwise it would wait for ever, and nobody could list the callbacks of its account.
    """
    found = connection.execute(queries()["callback_account"], {"task_id": task_id}).fetchone()
    if found is None:
        return
    error = "the set can no longer read it, so it was not sent; read the task's result by its id"
    callback = Callback(
        task_id,
        found[0],
        "",
        now_us,
        now_us,
        CallbackState.FAILED,
        error=error,
        ended_us=now_us,
        expires_us=expires_us,
    )
    save(connection, callback)


def _values(callback: Callback) -> dict[str, Any]:
    return {
        "task_id": callback.task_id,
        "account": callback.account,
        "state": callback.state.value,
        "expires_us": callback.expires_us,
        "record": _encode(callback),
    }
