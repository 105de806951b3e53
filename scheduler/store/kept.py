"""How many bytes each account keeps in the store: rows of tasks and callbacks, inputs, results, output files.

The database has a sum for each account, changed in the transaction that changes what it counts, so it is exact after
any crash. `Kept` also holds the committed sums in memory, for questions that must not wait.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

from scheduler.store.rows import Row
from scheduler.store.sql import for_rows, queries


class Kept:
    """The sums of all accounts. `add` and `settle` belong to the thread that writes; any thread may read the others.

    `size_bytes` is the sum of all accounts, `accounts` the number of those that keep anything.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._committed: dict[str, int] = {}
        self._changes: Counter[str] = Counter()
        self._settled: dict[str, int] = {}

    def of(self, account: str) -> int:
        """Bytes that the account keeps."""
        return self._committed.get(account, 0)

    @property
    def accounts(self) -> int:
        return len(self._committed)

    def load(self, connection: sqlite3.Connection) -> None:
        """Read all sums, one row for each account."""
        self._committed = dict(connection.execute(queries()["kept_sums"]).fetchall())
        self.size_bytes = sum(self._committed.values())

    # -- inside a transaction

    def add(self, account: str, size_bytes: int) -> None:
        """The account keeps so many bytes more, or fewer where the number is negative."""
        self._changes[account] += size_bytes

    def add_rows(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Count tasks' rows that are about to be written, in place of those with the same ids."""
        latest = {row[0]: row for row in rows}
        known = connection.execute(for_rows("row_sizes", len(latest)), list(latest))
        for account, size_bytes in known:
            self._changes[account] -= size_bytes
        for row in latest.values():
            self._changes[row[1]] += len(row[-1])

    def settle(self, connection: sqlite3.Connection) -> None:
        """Write the changed sums. Call it last in the transaction, then `committed` or `rolled_back`."""
        for account, change in self._changes.items():
            if not change:
                continue
            values = {"account": account, "size_bytes": change}
            (size_bytes,) = connection.execute(queries()["change_kept_sum"], values).fetchone()
            if not size_bytes:
                connection.execute(queries()["drop_kept_sum"], values)
            self._settled[account] = size_bytes
        self._changes.clear()

    def committed(self) -> None:
        """The transaction is committed: show its sums."""
        for account, size_bytes in self._settled.items():
            self.size_bytes += size_bytes - self._committed.get(account, 0)
            if size_bytes:
                self._committed[account] = size_bytes
            else:
                self._committed.pop(account, None)
        self._settled.clear()

    def rolled_back(self) -> None:
        """Nothing of the transaction counts."""
        self._changes.clear()
        self._settled.clear()
