"""The spool of a batch: where its inputs lie until it is over, as the request's body brought them."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import BinaryIO, Final

from scheduler.batch import Batch, Format
from scheduler.batches import item
from scheduler.batches.archive import ArchiveReader
from scheduler.batches.item import Item, ItemLimits, Reader
from scheduler.batches.lines import LinesReader
from scheduler.batches.window import AT_ONCE_BYTES
from scheduler.errors import SchedulerError, StoreError
from scheduler.source import PIECE_BYTES
from scheduler.store.contract import INLINE_BYTES, Blobs, Body

_READERS: Final[dict[Format, Reader]] = {Format.LINES: LinesReader(), Format.TAR: ArchiveReader()}

Taken = tuple[Item, Body]
"""An input and its body, which is the caller's: a blob in it must be deleted, or named by a row."""

Finder = Callable[[BinaryIO], Iterator[Item]]
"""Finds inputs in an open spool."""


async def count(blobs: Blobs, body: Body, form: Format, limits: ItemLimits) -> int:
    """The number of inputs, each of which is checked. Raises `BadRequest` and `StoreError`."""
    with closing(_open(blobs, body)) as file:
        return await asyncio.to_thread(item.count, _READERS[form], file, limits)


async def take(blobs: Blobs, batch: Batch, most: int) -> list[Taken]:
    """The next inputs of a batch, `most` at most. Raises `BadRequest`, `StoreError`, `DiskFull`."""

    def following(file: BinaryIO) -> Iterator[Item]:
        at, reader = batch.next_item, _READERS[batch.format]
        for number in range(batch.made + 1, batch.made + 1 + most):
            found = reader.read(file, at, number)
            if found is None:
                return
            at = found.next_item
            yield found

    return await _take(blobs, batch, following)


async def take_again(blobs: Blobs, batch: Batch, items: Sequence[int]) -> list[Taken]:
    """The inputs that begin at these bytes of the spool, or the first of them. Raises as `take`."""

    def those(file: BinaryIO) -> Iterator[Item]:
        for at in items:
            found = _READERS[batch.format].read(file, at, 1)
            if found is None:
                raise StoreError(f"batch {batch.id}: its input at byte {at} is gone")
            yield found

    return await _take(blobs, batch, those)


async def forget(blobs: Blobs, taken: Sequence[Taken]) -> None:
    """Delete the bodies of inputs that were not used. Never raises: files that stay are swept up later."""
    with suppress(SchedulerError, OSError):
        await blobs.delete([body.blob for _, body in taken if body.blob is not None])


async def _take(blobs: Blobs, batch: Batch, find: Finder) -> list[Taken]:
    """Make a body of each input that `find` finds, until they are too many bytes to be held at a time."""
    taken: list[Taken] = []
    with closing(_open(blobs, batch.spool)) as file:
        try:
            for found, data in await asyncio.to_thread(_load, file, find):
                taken.append((found, await _body(blobs, file, found, data)))
        except BaseException:
            await forget(blobs, taken)
            raise
    return taken


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


async def _body(blobs: Blobs, file: BinaryIO, found: Item, data: bytes | None) -> Body:
    if data is not None and len(data) <= INLINE_BYTES:
        return Body(len(data), data)
    writer = blobs.body(found.size_bytes)
    try:
        if data is not None:
            await writer.write(data)
        else:
            for first in range(0, found.size_bytes, PIECE_BYTES):
                length = min(PIECE_BYTES, found.size_bytes - first)
                await writer.write(await asyncio.to_thread(_read, file, found.at + first, length))
        return await writer.finish()
    except BaseException:
        await writer.abort()
        raise


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    data = file.read(length)
    if len(data) != length:
        raise StoreError("the spool of a batch became shorter")
    return data


def _open(blobs: Blobs, body: Body) -> BinaryIO:
    """Open a spool. Raises `StoreError` if it is gone."""
    if body.inline is not None:
        return io.BytesIO(body.inline)
    if body.blob is None:
        raise StoreError("the inputs of the batch are no longer kept")
    source = blobs.open_read(body.blob)
    try:
        fd = source.fileno()
        assert fd is not None
        return os.fdopen(os.dup(fd), "rb")
    finally:
        source.close()
