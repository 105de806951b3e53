"""The spools of batches: where their inputs lie until they are over, as the requests' bodies brought them."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from typing import Any, BinaryIO, Final, TypeVar

from scheduler.background import to_its_end
from scheduler.batch import Batch, Format
from scheduler.batches.archive import ArchiveReader
from scheduler.batches.item import Counter, Gap, Item, ItemLimits, Reader, inputs_from
from scheduler.batches.lines import LinesReader
from scheduler.batches.window import AT_ONCE_BYTES
from scheduler.errors import SchedulerError, StoreError
from scheduler.source import PIECE_BYTES
from scheduler.store.contract import INLINE_BYTES, Blobs, Body

THREADS: Final = 2
"""Threads that read spools. Large bodies keep a thread busy for seconds; the rest of the set must not wait for it."""
_READERS: Final[dict[Format, Reader]] = {Format.LINES: LinesReader(), Format.TAR: ArchiveReader()}

Taken = tuple[Item, Body]
"""An input and its body, which is the caller's: a blob in it must be deleted, or named by a row."""

Finder = Callable[[BinaryIO], Iterator[Item]]
"""Finds inputs in an open spool."""

T = TypeVar("T")


class Spools:
    """Reads the spools of all batches, with a few threads of its own, which they take in turns."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="spools")

    def close(self) -> None:
        """Read nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def count(self, body: Body, form: Format, limits: ItemLimits) -> int:
        """The number of inputs, each of which is checked. Raises `BadRequest` and `StoreError`."""
        with closing(self._open(body)) as file:
            counter = Counter(_READERS[form], file, limits)
            while await self._in_thread(counter.portion):
                pass
            return counter.inputs

    async def take(self, batch: Batch, most: int) -> list[Taken]:
        """The next inputs of a batch, `most` at most. Raises `BadRequest`, `StoreError`, `DiskFull`."""
        reader = _READERS[batch.format]
        return await self._take(
            batch, lambda file: islice(inputs_from(reader, file, batch.next_item, batch.made + 1), most)
        )

    async def take_again(self, batch: Batch, items: Sequence[int]) -> list[Taken]:
        """The inputs that begin at these bytes of the spool, or the first of them. Raises as `take`."""

        def those(file: BinaryIO) -> Iterator[Item]:
            for at in items:
                found = _READERS[batch.format].read(file, at, 1)
                if found is None or isinstance(found, Gap):
                    raise StoreError(f"batch {batch.id}: its input at byte {at} is gone")
                yield found

        return await self._take(batch, those)

    async def forget(self, taken: Sequence[Taken]) -> None:
        """Delete the bodies of inputs that were not used. Never raises: files that stay are swept up later."""
        with suppress(SchedulerError, OSError):
            await self._blobs.delete([body.blob for _, body in taken if body.blob is not None])

    async def _take(self, batch: Batch, find: Finder) -> list[Taken]:
        """Make a body of each input that `find` finds, until they are too many bytes to be held at a time."""
        taken: list[Taken] = []
        with closing(self._open(batch.spool)) as file:
            try:
                for found, data in await self._in_thread(_load, file, find):
                    taken.append((found, await self._body(file, found, data)))
            except BaseException:
                await self.forget(taken)
                raise
        return taken

    async def _body(self, file: BinaryIO, found: Item, data: bytes | None) -> Body:
        if data is not None and len(data) <= INLINE_BYTES:
            return Body(len(data), data)
        writer = self._blobs.body(found.size_bytes)
        try:
            if data is not None:
                await writer.write(data)
            else:
                for first in range(0, found.size_bytes, PIECE_BYTES):
                    length = min(PIECE_BYTES, found.size_bytes - first)
                    await writer.write(await self._in_thread(_read, file, found.at + first, length))
            return await writer.finish()
        except BaseException:
            await writer.abort()
            raise

    def _open(self, body: Body) -> BinaryIO:
        """Open a spool. Raises `StoreError` if it is gone."""
        if body.inline is not None:
            return io.BytesIO(body.inline)
        if body.blob is None:
            raise StoreError("the inputs of the batch are no longer kept")
        source = self._blobs.open_read(body.blob)
        try:
            fd = source.fileno()
            assert fd is not None
            return os.fdopen(os.dup(fd), "rb")
        finally:
            source.close()

    async def _in_thread(self, read: Callable[..., T], *args: Any) -> T:
        """Call it in one of the threads. A caller that is cancelled waits until the thread no longer uses the file."""
        reading = asyncio.get_running_loop().run_in_executor(self._threads, read, *args)
        return await to_its_end(reading)


def _load(file: BinaryIO, find: Finder) -> list[tuple[Item, bytes | None]]:
    """In a thread: the inputs with their bytes; large ones of an archive without."""
    loaded: list[tuple[Item, bytes | None]] = []
    left_bytes = AT_ONCE_BYTES
    for found in find(file):
        data = found.data
        if data is None and found.size_bytes <= INLINE_BYTES:
            data = _read(file, found.at, found.size_bytes)
        loaded.append((found, data))
        left_bytes -= len(data or b"")
        if left_bytes <= 0:
            break
    return loaded


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    data = file.read(length)
    if len(data) != length:
        raise StoreError("the spool of a batch became shorter")
    return data
