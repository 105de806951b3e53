"""Batches in the database of a store of tasks."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from scheduler.batch import Batch, BatchCounts
from scheduler.errors import AccountLimit, IdempotencyConflict, StoreError
from scheduler.store.batch_contract import MadeTask
from scheduler.store.contract import IDEMPOTENCY_WINDOW_US, Durability, Idempotency
from scheduler.store.kept import Kept
from scheduler.store.rows import read_task, task_row
from scheduler.store.sql import queries
from scheduler.task import State, Task

_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Batch)
_RERUN: Final = (State.FAILED, State.TIMED_OUT, State.CANCELLED)
"""The states of tasks that a retry of their batch runs again."""
_OPEN_MAX: Final = 100_000

T = TypeVar("T")


class Database(Protocol):
    """The store's database, as batches use it."""

    async def write(
        self, apply: Callable[[sqlite3.Connection], T], durability: Durability, *, new: bool = False
    ) -> T:
        """Run `apply` in a transaction. `new`: it takes more room, and is refused where there is too little."""

    def read(self, read: Callable[[sqlite3.Connection], T]) -> Awaitable[T]: ...


class SqliteBatches:
    """`scheduler.store.batch_contract.BatchStore` in the database of a `SqliteStore`."""

    def __init__(self, database: Database, kept: Kept) -> None:
        self._database = database
        self._kept = kept

    async def add(self, batch: Batch, idempotency: Idempotency | None, most: int) -> Batch:
        account = batch.spec.account
        values: dict[str, Any] = {
            "id": batch.id,
            "account": account,
            "key": idempotency.key if idempotency else None,
            "fingerprint": idempotency.fingerprint if idempotency else None,
            "created_us": batch.created_us,
            **_saved(batch),
        }

        def add(connection: sqlite3.Connection) -> Batch:
            sql = queries()
            if idempotency is not None:
                known = keyed(connection, account, idempotency.key, batch.created_us)
                if known is not None:
                    idempotency.check(known[0])
                    return known[1]
                if _made_a_task(connection, values):
                    raise IdempotencyConflict
            _check_room(connection, account, most)
            row = connection.execute(sql["add_batch"], values).lastrowid
            self._kept.add(account, values["size_bytes"])
            if batch.spool.blob is not None:
                connection.execute(sql["add_blob"], {"name": batch.spool.blob, "task": _owner(row or 0)})
            return batch

        return await self._database.write(add, Durability.POWER, new=True)

    async def check_room(self, account: str, most: int) -> None:
        await self._database.read(lambda db: _check_room(db, account, most))

    async def save(self, batch: Batch) -> None:
        values = _saved(batch)
        spool = batch.spool.blob

        def save(connection: sqlite3.Connection) -> None:
            number = self._save(connection, batch, values)
            if spool is None:
                connection.execute(queries()["free_blobs_of_task"], {"task": _owner(number)})

        await self._database.write(save, Durability.POWER)

    async def fill(self, batch: Batch, made: Sequence[MadeTask]) -> None:
        values = _saved(batch)
        rows = [(task_row(each.task), each) for each in made]
        earlier_rows = [task_row(each.earlier) for each in made if each.earlier is not None]
        released = [{"id": row[0], "expires_us": row[-2], "facts": row[-1]} for row in earlier_rows]

        def fill(connection: sqlite3.Connection) -> None:
            sql = queries()
            number = self._save(connection, batch, values)
            if earlier_rows:
                self._kept.add_rows(connection, earlier_rows)
                connection.executemany(sql["release_task"], released)
            for row, each in rows:
                place = (*row, number, each.item, batch.round)
                task = connection.execute(sql["add_batch_task"], place).lastrowid
                connection.execute(sql["add_inputs"], (task, *msgspec.structs.astuple(each.stdin)))
                self._kept.add(row[1], len(row[-1]) + each.stdin.size_bytes)
                if each.stdin.blob is not None:
                    connection.execute(sql["add_blob"], {"name": each.stdin.blob, "task": task})

        await self._database.write(fill, Durability.POWER, new=True)

    def _save(self, connection: sqlite3.Connection, batch: Batch, values: dict[str, Any]) -> int:
        """Write a batch's facts; return its row."""
        found = _row(connection, batch.id)
        if found is None:
            raise StoreError(f"batch {batch.id} is no longer kept")
        connection.execute(queries()["save_batch"], values)
        self._kept.add(batch.spec.account, values["size_bytes"] - found[2])
        return found[0]

    async def get(self, batch_id: str) -> Batch | None:
        found = await self._database.read(lambda db: _row(db, batch_id))
        return None if found is None else _read(found[1])

    async def keyed(self, account: str, key: str, now_us: int) -> Batch | None:
        found = await self._database.read(lambda db: keyed(db, account, key, now_us))
        return None if found is None else found[1]

    async def page(self, account: str, before: str | None, limit: int) -> list[Batch]:
        values = {"account": account, "before": before, "limit": limit}
        rows = await self._database.read(
            lambda db: db.execute(queries()["page_of_batches"], values).fetchall()
        )
        return [_read(facts) for (facts,) in rows]

    async def twin(self, account: str, idempotency: Idempotency, now_us: int) -> Batch | None:
        found = await self._database.read(lambda db: keyed(db, account, idempotency.key, now_us))
        if found is None:
            return None
        idempotency.check(found[0])
        return found[1]

    async def open_batches(self) -> list[Batch]:
        values = {"after": "", "limit": _OPEN_MAX}
        rows = await self._database.read(lambda db: db.execute(queries()["open_batches"], values).fetchall())
        return [_read(facts) for _, facts in rows]

    async def counts(self, batch: Batch) -> BatchCounts:
        rows = await self._of(batch.id, "batch_counts")
        states: dict[State, int] = {}
        again = 0
        for text, made_in, count in rows:
            state = State(text)
            if made_in < batch.round and state in _RERUN:
                again += count
            else:
                states[state] = states.get(state, 0) + count
        return BatchCounts(states, again)

    async def live(self, batch_id: str) -> list[str]:
        return [task_id for (task_id,) in await self._of(batch_id, "batch_live")]

    async def failed(self, batch: Batch, limit: int) -> list[tuple[int, Task]]:
        found: list[tuple[int, Task]] = []
        for state in _RERUN:
            rows = await self._of(
                batch.id, "batch_failed", round=batch.round, state=state.value, limit=limit - len(found)
            )
            found += [(item, read_task(facts)) for item, facts in rows]
        return found

    async def ended(self, batch_id: str, after: int, limit: int) -> list[tuple[int, Task]]:
        rows = await self._of(batch_id, "batch_ended", after=after, limit=limit)
        return [(place, read_task(facts)) for place, facts in rows]

    async def _of(self, batch_id: str, query: str, **values: Any) -> list[Any]:
        """The rows of a query about one batch; none where it is not there."""

        def read(connection: sqlite3.Connection) -> list[Any]:
            found = _row(connection, batch_id)
            if found is None:
                return []
            return connection.execute(queries()[query], values | {"batch": found[0]}).fetchall()

        return await self._database.read(read)


# -- inside a transaction


def keyed(connection: sqlite3.Connection, account: str, key: str, now_us: int) -> tuple[bytes, Batch] | None:
    """The batch that an account made under a key in the 24 h before `now_us`, and the digest of that request."""
    values = {"account": account, "key": key}
    found = connection.execute(queries()["keyed_batch"], values).fetchone()
    if found is None or now_us - found[1] >= IDEMPOTENCY_WINDOW_US:
        return None
    return found[0], _read(found[2])


def count_end(connection: sqlite3.Connection, task_row_number: int) -> None:
    """Give a task of a batch its place among the ended ones, if it has none yet."""
    for query in ("count_end", "number_end"):
        connection.execute(queries()[query], {"task": task_row_number})


def expire(connection: sqlite3.Connection, now_us: int, limit: int, kept: Kept) -> None:
    """Delete tasks of batches whose time has passed, and each batch once it has none; free their blobs.

    Up to `limit` rows of both are deleted: an account may have many batches of one task.
    """
    sql = queries()
    expired = connection.execute(sql["expired_batches"], {"now_us": now_us, "limit": limit}).fetchall()
    left = limit
    for number, account, size_bytes in expired:
        if left <= 0:
            return
        rows = connection.execute(sql["tasks_of_batch"], {"batch": number, "limit": left}).fetchall()
        tasks = [{"task": row} for row, _ in rows]
        kept.add(account, -sum(size for _, size in rows))
        for query in ("free_blobs_of_task", "drop_input", "drop_results", "drop_task"):
            connection.executemany(sql[query], tasks)
        if len(rows) < left:
            connection.execute(sql["free_blobs_of_task"], {"task": _owner(number)})
            connection.execute(sql["drop_batch"], {"batch": number})
            kept.add(account, -size_bytes)
        left -= len(rows) + 1


def _check_room(connection: sqlite3.Connection, account: str, most: int) -> None:
    (held,) = connection.execute(queries()["count_batches"], {"account": account}).fetchone()
    if held >= most:
        raise AccountLimit(
            f"the account has {held} batches, as many as it may; each is forgotten at its `expires_at`",
            retry_after_s=60.0,
        )


def _made_a_task(connection: sqlite3.Connection, values: dict[str, Any]) -> bool:
    known = connection.execute(queries()["keyed_task"], values).fetchone()
    return known is not None and values["created_us"] - known[1] < IDEMPOTENCY_WINDOW_US


def _row(connection: sqlite3.Connection, batch_id: str) -> tuple[int, bytes, int] | None:
    found: tuple[int, bytes, int] | None = connection.execute(
        queries()["get_batch"], {"id": batch_id}
    ).fetchone()
    return found


def _owner(row: int) -> int:
    """The owner of a batch's spool among the owners of blobs, the others of which are rows of tasks."""
    return -row


def _saved(batch: Batch) -> dict[str, Any]:
    facts = _facts(batch)
    spool_bytes = batch.spool.size_bytes if batch.spool.blob is not None else 0
    return {
        "id": batch.id,
        "is_open": int(batch.ended_us is None),
        "expires_us": batch.expires_us,
        "size_bytes": len(facts) + spool_bytes,
        "facts": facts,
    }


def _facts(batch: Batch) -> bytes:
    try:
        return _encode(batch)
    except UnicodeEncodeError as error:
        raise StoreError(f"batch {batch.id} has text that is not Unicode: {error.reason}") from error


def _read(facts: bytes) -> Batch:
    try:
        return _decoder.decode(facts)
    except msgspec.MsgspecError as error:
        raise StoreError(f"a batch's row cannot be read: {error}") from error
