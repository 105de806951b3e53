"""The callbacks in the store of tasks: read for their tries, written after each, listed for their accounts."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from scheduler.callback import Callback, CallbackFilter, CallbackState
from scheduler.errors import CallbackNotFailed, CallbackUnknown, CallbackUnreadable, StoreError
from scheduler.store import callback_rows, pages
from scheduler.store.contract import Durability
from scheduler.store.rows import read_task
from scheduler.store.sql import queries
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Task

_PORTION: Final = 500


class SqliteCallbacks:
    """`scheduler.callbacks.deliveries.CallbackStore` in a `SqliteStore`, which is open.

    `SqliteStore.finish` adds the callbacks: in the transaction that ends their tasks.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def waiting(self) -> AsyncIterator[list[Callback | str]]:
        """Yield all callbacks that wait, in portions: a long read would keep the database's log growing.

        One whose row cannot be read is represented by the id of its task.
        """
        after = ""
        while True:
            values = {"after": after, "limit": _PORTION}

            def portion(db: sqlite3.Connection, values: dict[str, Any] = values) -> list[tuple[str, bytes]]:
                return db.execute(queries()["waiting_callbacks"], values).fetchall()

            rows = await self._store.read(portion)
            yield [_readable(task_id, record) for task_id, record in rows]
            if len(rows) < _PORTION:
                return
            after = rows[-1][0]

    async def due(self, task_id: str) -> tuple[Callback, Task] | None:
        """Return a callback and its task as it ended; None if the callback does not wait, or is no longer kept.

        Raises `CallbackUnreadable`.
        """
        found = await self._store.read(
            lambda db: db.execute(queries()["get_callback"], {"task_id": task_id}).fetchone()
        )
        if found is None:
            return None
        callback = callback_rows.read(found[0])
        if callback.state is not CallbackState.WAITING:
            return None
        try:
            return callback, read_task(found[1])
        except (StoreError, TypeError) as error:
            raise CallbackUnreadable(f"the row of task {task_id} cannot be read: {error}") from error

    async def fail_unreadable(self, task_id: str, now_us: int, expires_us: int) -> None:
        """End a callback that cannot be read; it is listed as failed from now on."""
        await self._store.write(
            lambda db: callback_rows.fail_unreadable(db, task_id, now_us, expires_us, self._store.kept),
            Durability.PROCESS,
        )

    async def save(self, callback: Callback) -> None:
        """Write what became of a callback, so that it survives a killed process. After a loss of power it may be made
        once more."""
        await self._store.write(
            lambda db: callback_rows.save(db, callback, self._store.kept), Durability.PROCESS
        )

    async def revive(
        self, account: str, task_id: str, revived: Callable[[Callback], Callback]
    ) -> tuple[Callback, bool]:
        """Let a failed callback wait again, as `revived` makes it; return it, and True if it had failed.

        One that waits is returned as it is. Raises `CallbackUnknown`, `CallbackNotFailed`.
        """

        def revive(connection: sqlite3.Connection) -> tuple[Callback, bool]:
            found = connection.execute(queries()["get_callback"], {"task_id": task_id}).fetchone()
            callback = None if found is None else callback_rows.read(found[0])
            if callback is None or callback.account != account:
                raise CallbackUnknown(
                    f"no callback of a task {task_id} of this account; after their end they are kept for a limited time"
                )
            if callback.state is CallbackState.MADE:
                raise CallbackNotFailed(
                    f"the callback of task {task_id} was made; only a failed one can be tried again"
                )
            if callback.state is CallbackState.WAITING:
                return callback, False
            waiting = revived(callback)
            callback_rows.save(connection, waiting, self._store.kept)
            return waiting, True

        return await self._store.write(revive, Durability.POWER)

    async def page(self, callback_filter: CallbackFilter) -> list[Callback]:
        """Callbacks of one account, those of the newest tasks first."""
        found = await self._store.read(lambda db: pages.of_callbacks(db, callback_filter))
        return [callback_rows.read(record) for record in found]

    async def expire(self, now_us: int, limit: int) -> int:
        """Delete up to `limit` callbacks whose `expires_us` has passed; return how many."""
        return await self._store.write(
            lambda db: callback_rows.expire(db, now_us, limit, self._store.kept), Durability.PROCESS
        )


def _readable(task_id: str, record: bytes) -> Callback | str:
    try:
        return callback_rows.read(record)
    except CallbackUnreadable:
        return task_id
