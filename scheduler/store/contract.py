"""The contract of a store of tasks. Durable means: on disk, surviving loss of power, when the call returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Coroutine
from enum import IntEnum
from typing import Any, Final, Protocol

import msgspec

from scheduler.errors import IdempotencyConflict
from scheduler.policy.storage import KeptBytes
from scheduler.source import Source
from scheduler.task import State, Task

INLINE_BYTES: Final = 32 * 1024
"""Bodies up to this size are stored in the task's row, so that one group commit covers them; larger ones are blobs."""


IDEMPOTENCY_WINDOW_US: Final = 24 * 3600 * 1_000_000
"""How long an idempotency key is remembered, in microseconds."""


class Durability(IntEnum):
    """The failure that a write must survive when its call returns."""

    PROCESS = 1
    """A killed process (`kill -9`): handed to the operating system."""
    POWER = 2
    """Loss of power: synced to disk."""


class Body(msgspec.Struct, frozen=True):
    """A stored body: `inline`, or the name of a finished blob; `size_bytes` in both cases."""

    size_bytes: int
    inline: bytes | None = None
    blob: str | None = None


EMPTY: Final = Body(0, b"")


class Results(msgspec.Struct, frozen=True):
    """The results of a task: its outputs (if async), and its files by path."""

    stdout: Body = EMPTY
    stderr: Body = EMPTY
    files: dict[str, Body] = {}

    @property
    def blobs(self) -> list[str]:
        """The names of the blobs in it."""
        bodies = (self.stdout, self.stderr, *self.files.values())
        return [body.blob for body in bodies if body.blob is not None]

    @property
    def size_bytes(self) -> int:
        """The size of all of it."""
        files = sum(body.size_bytes for body in self.files.values())
        return self.stdout.size_bytes + self.stderr.size_bytes + files


class Idempotency(msgspec.Struct, frozen=True):
    """A client's key and a digest of the request made under it.

    `before`: the digest that earlier releases made of this request, if it is another; their keys must hold on.
    """

    key: str
    fingerprint: bytes
    before: bytes | None = None

    def check(self, fingerprint: bytes) -> None:
        """Raise `IdempotencyConflict` if the stored digest is that of another request."""
        if fingerprint not in (self.fingerprint, self.before):
            raise IdempotencyConflict


class DeadLetterLimits(msgspec.Struct, frozen=True):
    """Bounds of the dead letters of one account: how many, and the bytes of their inputs together."""

    tasks: int = 1_000
    size_bytes: int = 1 << 30


class DeadLetters(msgspec.Struct, frozen=True):
    """How many dead letters are kept, and the bytes of their inputs together."""

    tasks: int
    size_bytes: int


class TaskFilter(msgspec.Struct, frozen=True):
    """Selects a page of one account's tasks, newest first: ids below `before`, at most `limit`.

    `dead`: only dead letters, whatever `state` says.
    """

    account: str
    state: State | None = None
    image: str | None = None
    name: str | None = None
    before: str | None = None
    limit: int = 50
    dead: bool = False


class Store(Protocol):
    """Calls come from one event loop; writes of concurrent callers share commits. Raises `StoreError`, `DiskFull`."""

    @property
    def kept(self) -> KeptBytes:
        """The bytes of committed writes, while the store is open."""

    async def open(self) -> None:
        """Open or create; migrate an older schema. Raises `StoreTooNew`."""

    async def close(self) -> None:
        """Write what is queued, then close."""

    def add(self, task: Task, stdin: Body, idempotency: Idempotency | None) -> Coroutine[Any, Any, Task]:
        """Store a new async task and its input, durable against loss of power once what is returned was awaited.

        Gives `task`, or the task that the same key and fingerprint made within 24 h. Raises `IdempotencyConflict` when
        the key was used with another fingerprint. Without a key the task may run and even end meanwhile: then `finish`
        may be called already, and raises `StaleLease` if the task is not added after all.
        """

    async def update(self, task: Task, durability: Durability) -> None:
        """Write the task's present facts, even if it has no row yet: a sync task's first and only row."""

    def update_later(self, task: Task) -> None:
        """Like `update`, but a moment later and without waiting (for a task that began to run).

        A write of the same task that comes first takes its place.
        """

    async def finish(self, task: Task, results: Results, durability: Durability = Durability.POWER) -> None:
        """Write a task's end and its results in one commit; drop its input. Results may be written again.

        The input of a task that is `dead` stays, within the account's bounds: its oldest dead letters go first. Sets
        `dead` to False where the input is gone, or too large to be kept. Raises `StaleLease`, and writes nothing, if a
        later attempt's lease is stored.
        """

    async def replay(self, task_id: str, new: Task) -> Task:
        """Store a new async task with the input of a dead letter, durable against loss of power.

        The dead letter is one no longer. Returns `new`, or the task that replayed it before. Raises `NotDead`, and
        `TaskUnknown` if the dead letter or its replay is no longer kept.
        """

    async def dead_letters(self) -> DeadLetters:
        """How many dead letters all accounts have."""

    async def get(self, task_id: str) -> Task | None: ...

    async def keyed(self, account: str, key: str, now_us: int) -> Task | None:
        """Return the task that an account made under this idempotency key in the 24 h before `now_us`."""

    async def twin(self, account: str, idempotency: Idempotency, now_us: int) -> Task | None:
        """As `keyed`, for a call that may be the same. Raises `IdempotencyConflict` if it is another request."""

    async def stdin(self, task_id: str) -> Body | None: ...

    async def results(self, task_id: str) -> Results | None: ...

    async def page(self, task_filter: TaskFilter) -> list[Task]: ...

    async def frees_at_us(self, account: str) -> int | None:
        """Return when the first of the account's ended tasks expires; None if none has ended."""

    def unfinished(self) -> AsyncIterator[Task]:
        """Return async tasks that are queued or running, oldest first, for a set that restarts."""

    async def expire(self, now_us: int, limit: int) -> list[str]:
        """Delete up to `limit` ended tasks whose `expires_us` has passed; return the blobs that are free now."""

    async def blobs_in_use(self) -> set[str]:
        """Return all blobs that rows name; all others in the blob folder are orphans."""


class BodyWriter(Protocol):
    """Collects a body: in memory up to `INLINE_BYTES`, beyond that in a blob. Raises `DiskFull`."""

    @property
    def size_bytes(self) -> int: ...

    async def write(self, data: bytes) -> None: ...

    async def write_source(self, source: Source) -> None:
        """Write a whole source. Holes of an open file stay holes.

        The caller may close the source once this has ended in any way. Also raises `SourceUnreadable`.
        """

    async def read(self, first: int, most: int) -> bytes:
        """Return some of the bytes that were written, from byte `first` on, also while others are being written.

        Empty where none can be read yet. It may go on after `finish`. Raises `StoreError` once the body is deleted.
        """

    async def finish(self) -> Body:
        """Return the whole body; a blob is synced to disk."""

    async def abort(self) -> None:
        """Discard the body; does nothing after `finish`."""


class Blobs(Protocol):
    """Large bodies, as files that are complete or do not exist."""

    def check_space(self) -> None:
        """Raise `DiskFull` if the disk has too little space for any blob."""

    def free_bytes(self) -> int:
        """Free space of the disk, in bytes. Raises `OSError`."""

    def body(self, limit_bytes: int | None = None) -> BodyWriter: ...

    def open_read(self, name: str) -> Source:
        """Open a finished blob; the caller closes it. Raises `StoreError` if it does not exist."""

    async def delete(self, names: Collection[str]) -> None: ...

    async def sweep(self, in_use: Collection[str], older_than_s: float) -> int:
        """Remove blobs that no row names and that are too old to be in the making; return their number."""

    def close(self) -> None: ...
