"""Callbacks in the database: written with the end of their task, and after each try. Called inside a transaction."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from scheduler.callback import Callback, CallbackState
from scheduler.errors import StoreError
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
    """Decode a row's record. Raises `StoreError`."""
    try:
        return _decoder.decode(record)
    except msgspec.MsgspecError as error:
        raise StoreError(f"a callback's row cannot be read: {error}") from error


def _values(callback: Callback) -> dict[str, Any]:
    return {
        "task_id": callback.task_id,
        "account": callback.account,
        "state": callback.state.value,
        "expires_us": callback.expires_us,
        "record": _encode(callback),
    }
