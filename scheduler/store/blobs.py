"""Large bodies as files, in 256 folders. A file gets its name only when it is complete and synced.

A finished blob belongs to the row that names it. A blob that no row names is an orphan, which `sweep` removes
later.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Final, TypeVar

from scheduler.background import to_its_end
from scheduler.errors import DiskFull, StoreError
from scheduler.source import OpenFile, Source
from scheduler.store import faults, holes
from scheduler.store.contract import INLINE_BYTES, Body
from scheduler.store.readback import read_back
from scheduler.store.sweep import UNFINISHED, sweep
from scheduler.store.sync import sync_folder

CHUNK_BYTES: Final = 256 * 1024
"""Smaller writes are collected up to this many bytes before a thread writes them."""
COPY_BYTES: Final = 8 * 1024 * 1024
"""Bytes that a thread copies of a file before it lets other work run and checks the free space again."""
DEFAULT_MIN_FREE_MIB: Final = 512
DEFAULT_BLOB_LIMIT_BYTES: Final = 16 * 1024**3

_THREADS: Final = 4
_NAME: Final = re.compile(r"[0-9a-f]{32}")

T = TypeVar("T")


class BlobTooLarge(StoreError):
    """The body exceeds its size limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is over its limit of {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class BlobMissing(StoreError):
    """No such blob."""


class BlobStore:
    """`contract.Blobs` in `directory`; refuses new blobs when less than `min_free_mib` of the disk is free."""

    def __init__(
        self,
        directory: Path,
        *,
        limit_bytes: int = DEFAULT_BLOB_LIMIT_BYTES,
        min_free_mib: int = DEFAULT_MIN_FREE_MIB,
    ) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self.min_free_bytes = min_free_mib * 1024 * 1024
        self.being_written: set[str] = set()
        self._synced: set[Path] = set()
        """Folders whose names this process has synced."""
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    def close(self) -> None:
        """End the threads, after the chunks that they are writing."""
        self._threads.shutdown()

    def writer(self, limit_bytes: int | None = None) -> BlobWriter:
        """Start a new blob of at most `limit_bytes` (by default the store's own limit)."""
        return BlobWriter(self, self.limit_bytes if limit_bytes is None else limit_bytes)

    def body(self, limit_bytes: int | None = None) -> SpooledBody:
        """Start a body that becomes a blob only if it is large."""
        return SpooledBody(self, self.limit_bytes if limit_bytes is None else limit_bytes)

    def open_read(self, name: str) -> OpenFile:
        """Open a finished blob for reading; the caller closes it. Raises `BlobMissing`."""
        path = self.path(name)
        try:
            return OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise BlobMissing(f"blob {name} is not there") from None
        except OSError as error:
            raise faults.from_os(error, path) from error

    async def delete(self, names: Collection[str]) -> None:
        """Delete blobs; a blob that does not exist is not an error."""
        paths = [self.path(name) for name in names]

        def delete() -> None:
            for path in paths:
                path.unlink(missing_ok=True)

        await self.in_thread(delete)

    async def sweep(self, in_use: Collection[str], older_than_s: float) -> int:
        """Delete finished blobs outside `in_use` and unfinished ones of earlier processes; return their number.

        Deletes only files that were last written more than `older_than_s` ago.
        `older_than_s` must exceed the time from a blob's commit to its row, and `in_use` must be read before.
        """
        before_s = time.time() - older_than_s
        return await self.in_thread(lambda: sweep(self.directory, in_use, self.being_written, before_s))

    def path(self, name: str) -> Path:
        """Return the path of a finished blob. Raises `BlobMissing` for an invalid name."""
        if not _NAME.fullmatch(name):
            raise BlobMissing(f"{name!r} is no blob's name")
        return self.directory / name[:2] / name

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run file I/O in one of the store's threads, to its end even if the caller is cancelled.

        Raises `StoreError`, `DiskFull`.
        """
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, work))
        except OSError as error:
            raise faults.from_os(error, self.directory) from error

    def create_unfinished(self, name: str) -> FileIO:
        """In a thread: create the file of an unfinished blob."""
        self.check_space()
        path = self.unfinished_path(name)
        try:
            return _create(path)
        except FileNotFoundError:
            self._make_folder(path.parent)
            return _create(path)

    def finish(self, name: str) -> None:
        """In a thread: give a complete, synced file its final name."""
        unfinished, path = self.unfinished_path(name), self.path(name)
        # A folder that exists is synced too: its maker may not have done so yet, or was killed before.
        if path.parent not in self._synced or not path.parent.exists():
            self._make_folder(path.parent)
        unfinished.rename(path)
        sync_folder(path.parent)

    def unfinished_path(self, name: str) -> Path:
        return self.directory / UNFINISHED / name

    def check_space(self) -> None:
        """Raise `DiskFull` if too little space is free."""
        try:
            free_bytes = self.free_bytes()
        except FileNotFoundError:
            return
        if free_bytes < self.min_free_bytes:
            min_mib = self.min_free_bytes >> 20
            raise DiskFull(f"less than {min_mib} MiB are free at {self.directory}; free some space there")

    def free_bytes(self) -> int:
        """Free space of the disk, in bytes. Raises `OSError`."""
        try:
            return faults.free_bytes(self.directory)
        except FileNotFoundError:
            # The folder comes with the first blob.
            return faults.free_bytes(self.directory.parent)

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(self.directory)
        if self.directory not in self._synced:
            sync_folder(self.directory.parent)
        self._synced |= {folder, self.directory}


class BlobWriter:
    """A blob that is being written, by one caller at a time. It must end with `commit` or `abort`."""

    def __init__(self, store: BlobStore, limit_bytes: int) -> None:
        self.name = secrets.token_hex(16)
        self.size_bytes = 0
        self._store = store
        self._limit_bytes = limit_bytes
        self._gathered = bytearray()
        self._file: FileIO | None = None
        # Bytes that the file has; the others are gathered, or being written.
        self._on_disk = 0
        self._turn = threading.Lock()
        """Wait for the thread, which may still write the chunk of a cancelled caller."""
        self._ended = False
        self._whole = True
        store.being_written.add(self.name)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write a piece. Raises `BlobTooLarge`, `DiskFull`, `StoreError`; after that, or after a cancellation, only
        `abort` is allowed."""
        self._check()
        if self.size_bytes + len(data) > self._limit_bytes:
            self._whole = False
            raise BlobTooLarge(self._limit_bytes)
        self.size_bytes += len(data)
        self._gathered += data
        if len(self._gathered) >= CHUNK_BYTES:
            chunk, self._gathered = self._gathered, bytearray()
            self._whole = False
            await self._store.in_thread(lambda: self._write(chunk))
            self._whole = True

    async def write_source(self, source: Source) -> None:
        """See `BodyWriter.write_source`; raises as `write`."""
        fd, size_bytes = source.fileno(), source.size_bytes
        if fd is None:
            async for piece in source.pieces():
                await self.write(piece)
            return
        self._check()
        if self.size_bytes + size_bytes > self._limit_bytes:
            self._whole = False
            raise BlobTooLarge(self._limit_bytes)
        self.size_bytes += size_bytes
        chunk, self._gathered = self._gathered, bytearray()
        self._whole = False
        await self._store.in_thread(lambda: self._write(chunk))
        at = 0
        while at < size_bytes:
            at = await to_its_end(self._store.in_thread(partial(self._copy, fd, at, size_bytes)))
        self._whole = True

    async def read(self, first: int, most: int) -> bytes:
        """See `BodyWriter.read`."""
        on_disk = self._on_disk
        if first >= on_disk:
            # Nothing is gathered while a chunk is being written.
            return bytes(self._gathered[first - on_disk : first - on_disk + most])
        names = self._store.unfinished_path(self.name), self._store.path(self.name)
        return await read_back(names, first, min(most, on_disk - first))

    async def commit(self) -> str:
        """Sync file and folder, and return the blob's name. From now on the blob survives a loss of power."""
        self._check()
        chunk, self._gathered = self._gathered, bytearray()
        self._whole = False
        await self._store.in_thread(lambda: self._commit(chunk))
        return self.name

    async def abort(self) -> None:
        """Delete what was written. Does nothing after `commit`: `sweep` removes a blob that no row names."""
        if not self._ended:
            self._ended = True
            self._gathered = bytearray()
            await self._store.in_thread(self._abort)

    def _check(self) -> None:
        if self._ended:
            raise StoreError(f"blob {self.name} has ended already")
        if not self._whole:
            raise StoreError(f"blob {self.name} is not whole: an earlier write failed or was cancelled")

    # -- in a thread

    def _write(self, chunk: bytearray) -> None:
        with self._turn:
            if self._ended:
                return
            holes.write(chunk, self._with_space())
            self._on_disk += len(chunk)

    def _copy(self, fd: int, at: int, end: int) -> int:
        with self._turn:
            copied_to = end if self._ended else holes.copy(fd, at, end, self._with_space(), COPY_BYTES)
            self._on_disk += copied_to - at
            return copied_to

    def _with_space(self) -> FileIO:
        if self._file is None:
            self._file = self._store.create_unfinished(self.name)
        else:
            self._store.check_space()
        return self._file

    def _commit(self, chunk: bytearray) -> None:
        self._write(chunk)
        with self._turn:
            if self._ended or self._file is None:
                return
            os.fsync(self._file.fileno())
            self._file.close()
            self._store.finish(self.name)
            self._ended = True
            self._store.being_written.discard(self.name)

    def _abort(self) -> None:
        with self._turn:
            if self._file is not None:
                self._file.close()
                self._store.unfinished_path(self.name).unlink(missing_ok=True)
            self._store.being_written.discard(self.name)


class SpooledBody:
    """A body that arrives in pieces: kept in memory up to `INLINE_BYTES`, beyond that in a blob."""

    def __init__(self, store: BlobStore, limit_bytes: int) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._inline: bytearray | None = bytearray()
        self._writer: BlobWriter | None = None
        self._body: Body | None = None

    @property
    def size_bytes(self) -> int:
        """Number of bytes written."""
        if self._writer is not None:
            return self._writer.size_bytes
        return len(self._inline or b"")

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write a piece. Raises `BlobTooLarge`, `DiskFull`, `StoreError`; after that only `abort` is allowed."""
        if self._writer is not None:
            await self._writer.write(data)
            return
        if self._inline is None:
            raise StoreError("the body has ended already")
        size_bytes = len(self._inline) + len(data)
        if size_bytes > self._limit_bytes:
            self._inline = None
            raise BlobTooLarge(self._limit_bytes)
        if size_bytes <= INLINE_BYTES:
            self._inline += data
            return
        await (await self._begin_blob()).write(data)

    async def read(self, first: int, most: int) -> bytes:
        """See `BodyWriter.read`."""
        if self._writer is not None:
            return await self._writer.read(first, most)
        inline = self._inline if self._body is None else self._body.inline
        if inline is None:
            raise StoreError("the body was aborted")
        return bytes(inline[first : first + most])

    async def write_source(self, source: Source) -> None:
        """See `BodyWriter.write_source`; raises as `write`."""
        fd, size_bytes = source.fileno(), source.size_bytes
        if not size_bytes:
            return
        if fd is not None and self._writer is None and self.size_bytes + size_bytes <= INLINE_BYTES:
            await self.write(await to_its_end(self._store.in_thread(partial(holes.read, fd, size_bytes))))
        elif fd is not None:
            await (self._writer or await self._begin_blob()).write_source(source)
        else:
            async for piece in source.pieces():
                await self.write(piece)

    async def finish(self) -> Body:
        """Return the stored body: a blob is synced by then, an inline one must still be written to its row."""
        if self._body is None:
            if self._writer is not None:
                self._body = Body(self._writer.size_bytes, blob=await self._writer.commit())
            elif self._inline is not None:
                inline, self._inline = bytes(self._inline), None
                self._body = Body(len(inline), inline)
            else:
                raise StoreError("the body was aborted, or is not whole")
        return self._body

    async def abort(self) -> None:
        """Drop what was written. Does nothing after `finish`; see `BlobWriter.abort`."""
        self._inline = None
        if self._writer is not None:
            await self._writer.abort()

    async def _begin_blob(self) -> BlobWriter:
        if self._inline is None:
            raise StoreError("the body has ended already")
        inline, self._inline = self._inline, None
        self._writer = self._store.writer(self._limit_bytes)
        await self._writer.write(inline)
        return self._writer


def _create(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w")
