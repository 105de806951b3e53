"""Callbacks in the database: written with the end of their task, and after each try. Called inside a transaction."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from scheduler.callback import Callback, CallbackState
from scheduler.errors import CallbackUnreadable
from scheduler.store.kept import Kept
from scheduler.store.sql import queries

MOST_FAILED: Final = 1_000
"""Failed callbacks that are kept of one account; those of the oldest tasks go first."""

_encode = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Callback)


def add(connection: sqlite3.Connection, callback: Callback, facts: bytes, kept: Kept) -> None:
    """Add the callback of a task that has just ended, with the facts of the task's row. May be repeated."""
    values = _values(callback)
    if connection.execute(queries()["add_callback"], values | {"facts": facts}).rowcount:
        kept.add(callback.account, len(values["record"]) + len(facts))


def save(connection: sqlite3.Connection, callback: Callback, kept: Kept) -> None:
    """Write what became of a callback. Of an account's failed ones only the newest stay."""
    sql = queries()
    values = _values(callback)
    kept.add(callback.account, -_size_bytes(connection, callback.task_id))
    connection.execute(sql["save_callback"], values)
    kept.add(callback.account, _size_bytes(connection, callback.task_id))
    if callback.state is CallbackState.FAILED:
        bound = {"account": callback.account, "most": MOST_FAILED}
        for account, size_bytes in connection.execute(sql["drop_failed_callbacks"], bound).fetchall():
            kept.add(account, -size_bytes)


def expire(connection: sqlite3.Connection, now_us: int, limit: int, kept: Kept) -> int:
    """Delete up to `limit` callbacks whose `expires_us` has passed; return how many."""
    values = {"now_us": now_us, "limit": limit}
    expired = connection.execute(queries()["expire_callbacks"], values).fetchall()
    for account, size_bytes in expired:
        kept.add(account, -size_bytes)
    return len(expired)


def read(record: bytes) -> Callback:
    """Decode a row's record. Raises `CallbackUnreadable`."""
    try:
        return _decoder.decode(record)
    except msgspec.MsgspecError as error:
        raise CallbackUnreadable(f"a callback's row cannot be read: {error}") from error


def fail_unreadable(
    connection: sqlite3.Connection, task_id: str, now_us: int, expires_us: int, kept: Kept
) -> None:
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
    save(connection, callback, kept)


def _size_bytes(connection: sqlite3.Connection, task_id: str) -> int:
    found = connection.execute(queries()["callback_size"], {"task_id": task_id}).fetchone()
    return 0 if found is None else int(found[0])


def _values(callback: Callback) -> dict[str, Any]:
    return {
        "task_id": callback.task_id,
        "account": callback.account,
        "state": callback.state.value,
        "expires_us": callback.expires_us,
        "record": _encode(callback),
    }
