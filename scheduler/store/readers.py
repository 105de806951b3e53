"""The reading threads of a store, each with a connection of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from scheduler.errors import StoreError, Unavailable
from scheduler.store import faults
from scheduler.store.sql import queries

_THREADS: Final = 2
_WAITING_MAX: Final = 1_000
_SCAN_ROWS: Final = 500

T = TypeVar("T")


class Readers:
    """Reads the database at `path`; `connect` makes a connection to it."""

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store-reader")
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._waiting = 0
        self._closed = False

    def close(self) -> None:
        """Wait for the reads under way, then close. Blocks."""
        self._closed = True
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `read` returns in a thread. Raises `StoreError`, and `Unavailable` when too many reads wait."""
        if self._closed:
            # A scan may be between two of its reads.
            raise StoreError(f"store {self._path} is closed")
        if self._waiting >= _WAITING_MAX:
            raise Unavailable(f"{self._waiting} reads wait for the set's disk; try again soon")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._read_here, read)
        except sqlite3.Error as error:
            raise faults.from_sqlite(error, self._path) from error
        finally:
            self._waiting -= 1

    async def scan(self, query: str) -> AsyncIterator[list[Any]]:
        """Yield rows in the order of their first column, in short reads: a long one would keep the log growing."""
        after = ""
        while True:
            values = {"after": after, "limit": _SCAN_ROWS}

            def scan(db: sqlite3.Connection, values: dict[str, Any] = values) -> list[Any]:
                return db.execute(queries()[query], values).fetchall()

            rows = await self.read(scan)
            yield rows
            if len(rows) < _SCAN_ROWS:
                return
            after = rows[-1][0]

    def _read_here(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            self._connections.append(connection)
        return read(connection)


def at_one_moment(read: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    """A read whose statements all see the database as it is when the first one begins."""

    def together(db: sqlite3.Connection) -> T:
        db.execute("BEGIN")
        try:
            return read(db)
        finally:
            db.execute("COMMIT")

    return together
