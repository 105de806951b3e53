"""The store in one SQLite file, for one process: threads for reads, group commit for writes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from scheduler.errors import DiskFull, StoreError
from scheduler.store import batches, dead_letters, faults, journal, pages
from scheduler.store.additions import Addition, task_of_key, write_under_key
from scheduler.store.commits import GroupCommit
from scheduler.store.contract import (
    IDEMPOTENCY_WINDOW_US,
    INLINE_BYTES,
    Body,
    DeadLetterLimits,
    DeadLetters,
    Durability,
    Idempotency,
    Results,
    TaskFilter,
)
from scheduler.store.ends import End
from scheduler.store.journal import Journal
from scheduler.store.kept import Kept
from scheduler.store.lock import StoreLock
from scheduler.store.readers import Readers, at_one_moment
from scheduler.store.recent_ends import RecentEnds
from scheduler.store.recent_inputs import RecentInputs
from scheduler.store.rows import (
    DEAD,
    read_results,
    read_task,
    task_row,
)
from scheduler.store.schema import migrate, refuse_newer
from scheduler.store.sql import queries
from scheduler.store.sync import sync_folder, write_again
from scheduler.store.transactions import Transactions, save_rows
from scheduler.task import FINAL_STATES, Kind, Task

DEFAULT_MIN_FREE_MIB: Final = 256
FREED_BLOBS: Final = 10_000
"""Maximum number of blobs that one `expire` returns; the next calls return the rest."""

_WRITER_CACHE_KIB: Final = 16 * 1024
_LOG_BYTES: Final = 64 * 1024 * 1024

T = TypeVar("T")


class SqliteStore:
    """`scheduler.store.contract.Store` at `path`, with the files `-wal`, `-shm`, `.lock`, and `-rows-N` (the journal).

    `min_free_mib`: with less free disk, new tasks are refused with `DiskFull`; tasks in the store can still end.
    """

    def __init__(
        self,
        path: Path,
        *,
        min_free_mib: int = DEFAULT_MIN_FREE_MIB,
        dead_letter_limits: DeadLetterLimits | None = None,
    ) -> None:
        self.path = path
        self.kept = Kept()
        self._dead_letter_limits = dead_letter_limits or DeadLetterLimits()
        self._min_free_bytes = min_free_mib * 1024 * 1024
        self._journal = Journal(path)
        self._lock = StoreLock(path.with_name(path.name + ".lock"))
        self._folder = path.parent
        self._inputs = RecentInputs()
        self._ends = RecentEnds()
        # New tasks that are not committed yet.
        self._additions: dict[str, Addition] = {}
        self._commits: GroupCommit | None = None
        self._readers: Readers | None = None
        self.batches = batches.SqliteBatches(self, self.kept)

    async def open(self) -> None:
        """Open or create. Raises `StoreTooNew`, and `StoreError` if another process uses it or it is not a store."""
        if self._commits is not None:
            raise StoreError(f"store {self.path} is open already")
        try:
            await asyncio.to_thread(self._prepare)
            commits = GroupCommit(self.path, self._transactions, self._journal, self.kept)
            await commits.start()
        except sqlite3.Error as error:
            self._lock.release()
            raise faults.from_sqlite(error, self.path) from error
        except OSError as error:
            self._lock.release()
            raise faults.from_os(error, self.path) from error
        except BaseException:
            self._lock.release()
            raise
        self._readers = Readers(self.path, partial(self._connect, timeout_s=5.0))
        self._commits = commits

    async def close(self) -> None:
        """Write what is queued, then close. A closed store may be opened again."""
        commits, self._commits = self._commits, None
        readers, self._readers = self._readers, None
        if commits is None or readers is None:
            return
        try:
            await asyncio.to_thread(readers.close)
            try:
                await commits.stop()
            finally:
                self._journal.close()
        finally:
            self._lock.release()

    # -- writes

    def add(self, task: Task, stdin: Body, idempotency: Idempotency | None) -> Coroutine[Any, Any, Task]:
        if stdin.inline is not None and len(stdin.inline) > INLINE_BYTES:
            raise ValueError(f"inline bodies have at most {INLINE_BYTES} bytes, not {len(stdin.inline)}")
        addition = Addition(task, stdin)
        if idempotency is None:
            added = self._added(task, addition, self._writer().add(addition))
            self._additions[task.id] = addition
            # It may be asked for at once.
            self._inputs.keep(task.id, stdin)
            return added
        return self._add_keyed(task, addition, idempotency)

    async def _added(self, task: Task, addition: Addition, written: asyncio.Future[None]) -> Task:
        try:
            await written
        except BaseException:
            self._inputs.drop(task.id)
            raise
        finally:
            self._additions.pop(task.id, None)
        return task

    async def _add_keyed(self, task: Task, addition: Addition, idempotency: Idempotency) -> Task:
        created_us = task.created_us

        def add(connection: sqlite3.Connection) -> bytes | None:
            earlier = task_of_key(connection, addition, idempotency, created_us)
            if earlier is None:
                self._check_space()
                write_under_key(connection, addition, idempotency, created_us, self.kept)
            return earlier

        earlier = await self._writer().apply(add, Durability.POWER, refusable=True)
        if earlier is not None:
            return read_task(earlier)
        self._inputs.keep(task.id, addition.stdin)
        return task

    async def update(self, task: Task, durability: Durability) -> None:
        if durability is Durability.PROCESS and task.spec.kind is Kind.SYNC:
            try:
                self._writer().record(task_row(task))
            except OSError as error:
                raise faults.from_os(error, self.path) from error
        else:
            row = task_row(task)
            await self._fold_journal_of(task.id)
            await self._writer().save(row, durability)

    def update_later(self, task: Task) -> None:
        self._writer().save_later(task_row(task))

    async def finish(self, task: Task, results: Results, durability: Durability = Durability.POWER) -> None:
        end, addition = End(task, results), self._additions.get(task.id)
        # Unless the task is accepted after all, its end must not make a row of it.
        end.was_added = addition is not None
        await self._fold_journal_of(task.id)
        self._inputs.drop(task.id)
        if end.dead_row is not None or durability is not Durability.POWER:
            addition = None
        task.dead = await self._writer().end(end, durability, addition)
        if task.spec.kind is Kind.ASYNC:
            self._ends.keep(task)

    async def replay(self, task_id: str, new: Task) -> Task:
        def replay(connection: sqlite3.Connection) -> Task:
            self._check_space()
            return dead_letters.replay(connection, task_id, new, self.kept)

        await self._fold_journal_of(task_id)
        kept: Task = await self._writer().apply(replay, Durability.POWER, refusable=True)
        return kept

    async def dead_letters(self) -> DeadLetters:
        return await self.read(lambda db: dead_letters.totals(db, dead_letters.ALL))

    def _check_space(self) -> None:
        """Raise `DiskFull` if there is too little space for new tasks."""
        if faults.free_bytes(self._folder) < self._min_free_bytes:
            min_mib = self._min_free_bytes >> 20
            raise DiskFull(f"less than {min_mib} MiB are free at {self._folder}; free some space there")

    async def _fold_journal_of(self, task_id: str) -> None:
        """Wait until earlier rows of a task are in the database. Raises the reason if the database refuses them."""
        commits = self._writer()
        while self._journal.get(task_id) is not None:
            await commits.catch_up()
            error = commits.journal_error
            if error is not None:
                kind = DiskFull if isinstance(error, DiskFull) else StoreError
                raise kind(f"an older row of task {task_id} is not in the database yet: {error}") from error

    async def expire(self, now_us: int, limit: int) -> list[str]:
        def expire(connection: sqlite3.Connection) -> list[str]:
            sql = queries()
            old_keys = {"made_before_us": now_us - IDEMPOTENCY_WINDOW_US, "limit": limit}
            connection.execute(sql["expire_keys"], old_keys)
            expired = connection.execute(sql["expired"], {"now_us": now_us, "limit": limit}).fetchall()
            tasks = [{"task": number} for (number, *_) in expired]
            with_bodies = [{"task": number} for (number, has_bodies, *_) in expired if has_bodies]
            for number, _, account, is_dead, size_bytes in expired:
                self.kept.add(account, -size_bytes)
                if is_dead:
                    dead_letters.count_out(connection, number, account)
            for query in ("free_blobs_of_task", "drop_input", "drop_results"):
                connection.executemany(sql[query], with_bodies)
            connection.executemany(sql["drop_task"], tasks)
            batches.expire(connection, now_us, limit, self.kept)
            free = connection.execute(sql["free_blobs"], {"limit": FREED_BLOBS}).fetchall()
            connection.executemany(sql["drop_blob"], free)
            return [name for (name,) in free]

        await self._writer().catch_up()
        self._ends.expire(now_us)
        # Durable before the caller deletes the blobs: rows that reappear would name missing ones.
        freed: list[str] = await self._writer().apply(expire, Durability.POWER)
        return freed

    # -- reads

    async def get(self, task_id: str) -> Task | None:
        row = self._journal.get(task_id)
        if row is not None:
            return read_task(row[-1])
        recent = self._ends.get(task_id)
        if recent is not None:
            return recent
        found = await self.read(lambda db: db.execute(queries()["get_task"], {"id": task_id}).fetchone())
        return None if found is None else read_task(found[0])

    async def keyed(self, account: str, key: str, now_us: int) -> Task | None:
        found = await self._keyed(account, key, now_us)
        return None if found is None else read_task(found[1])

    async def twin(self, account: str, idempotency: Idempotency, now_us: int) -> Task | None:
        found = await self._keyed(account, idempotency.key, now_us)
        if found is None:
            return None
        idempotency.check(found[0])
        return read_task(found[1])

    async def _keyed(self, account: str, key: str, now_us: int) -> tuple[bytes, bytes] | None:
        """The digest of the request and the facts of the task that it made."""
        values = {"account": account, "key": key}
        found = await self.read(lambda db: db.execute(queries()["keyed_task"], values).fetchone())
        return None if found is None or now_us - found[1] >= IDEMPOTENCY_WINDOW_US else (found[0], found[2])

    async def stdin(self, task_id: str) -> Body | None:
        recent = self._inputs.get(task_id)
        if recent is not None:
            return recent
        found = await self.read(lambda db: db.execute(queries()["get_input"], {"id": task_id}).fetchone())
        return None if found is None else Body(*found)

    async def results(self, task_id: str) -> Results | None:
        found = await self.read(lambda db: db.execute(queries()["get_results"], {"id": task_id}).fetchone())
        return None if found is None else read_results(found[0])

    async def page(self, task_filter: TaskFilter) -> list[Task]:
        await self._writer().catch_up()
        # Otherwise a task that moves meanwhile would be in none of the states, or in two.
        found = await self.read(at_one_moment(lambda db: pages.of_tasks(db, task_filter)))
        return [read_task(facts) for facts in found]

    async def frees_at_us(self, account: str) -> int | None:
        states = (*(state.value for state in FINAL_STATES), DEAD)

        def first(db: sqlite3.Connection) -> list[int]:
            each = [{"account": account, "state": state} for state in states]
            found = [db.execute(queries()["first_to_expire"], values).fetchone() for values in each]
            # A task of a batch has no time of its own.
            return [row[0] for row in found if row is not None and row[0] is not None]

        return min(await self.read(first), default=None)

    async def unfinished(self) -> AsyncIterator[Task]:
        async for rows in self._open_readers().scan("unfinished"):
            for _, facts in rows:
                yield read_task(facts)

    async def blobs_in_use(self) -> set[str]:
        names: set[str] = set()
        async for rows in self._open_readers().scan("blobs_in_use"):
            names.update(name for (name,) in rows)
        return names

    # -- for the store's parts

    async def write(
        self, apply: Callable[[sqlite3.Connection], T], durability: Durability, *, new: bool = False
    ) -> T:
        """Run `apply` in a transaction. `new`: it takes more room, and is refused where there is too little."""

        def checked(connection: sqlite3.Connection) -> T:
            if new:
                self._check_space()
            return apply(connection)

        written: T = await self._writer().apply(checked, durability, refusable=new)
        return written

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `read` returns in a thread."""
        return await self._open_readers().read(read)

    def _open_readers(self) -> Readers:
        if self._readers is None:
            raise StoreError(f"store {self.path} is not open")
        return self._readers

    # -- opening

    def _writer(self) -> GroupCommit:
        if self._commits is None:
            raise StoreError(f"store {self.path} is not open")
        return self._commits

    def _connect(self, *, timeout_s: float) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=timeout_s, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _transactions(self) -> Transactions:
        return Transactions(
            self.path, self._connect_writer, self.kept, self._dead_letter_limits, self._check_space
        )

    def _connect_writer(self) -> sqlite3.Connection:
        # No waiting inside SQLite: the writer itself decides how long to wait.
        connection = self._connect(timeout_s=0)
        connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        connection.execute("PRAGMA secure_delete = FAST")
        return connection

    def _prepare(self) -> None:
        """Take the lock, create or migrate."""
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.take()
        if not self.path.exists():  # readable only for us; SQLite gives its other files the same mode
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        else:
            refuse_newer(self.path)
            # A sync of the process before may have failed, and SQLite is about to copy this into the database.
            log_path = self.path.with_name(f"{self.path.name}-wal")
            if log_path.exists():
                write_again(log_path)
        connection = self._connect(timeout_s=5.0)
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreError(f"the file system of {self.path} does not support SQLite's WAL mode")
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection, self.path)
            for segment in self._journal.earlier_segments():
                connection.execute("BEGIN IMMEDIATE")
                save_rows(connection, list(journal.read(segment)), self.kept)
                self.kept.settle(connection)
                connection.execute("COMMIT")
                segment.unlink()
            self.kept.load(connection)
        finally:
            connection.close()
        # The last connection's end has synced what a killed process wrote. Its folders may be new as well.
        for directory in (folder, folder.parent):
            sync_folder(directory)
