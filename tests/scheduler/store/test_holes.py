"""Copies of files that programs made: byte for byte, and no larger on disk than they were."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import DiskFull
from scheduler.source import OpenFile, SourceUnreadable
from scheduler.store import blobs as blobs_module
from scheduler.store import faults, holes
from scheduler.store.blobs import BlobStore, BlobTooLarge
from scheduler.store.contract import INLINE_BYTES, Body

PAGE: Final = 4096


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[BlobStore]:
    blobs = BlobStore(tmp_path / "blobs", min_free_mib=0)
    yield blobs
    blobs.close()


class File(OpenFile):
    """An open file of which `size_bytes` are meant, whatever becomes of it."""

    def of(self, size_bytes: int) -> File:
        self.size_bytes = size_bytes
        return self


@pytest.fixture
def source(tmp_path: Path) -> Iterator[File]:
    source = File(os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT))
    yield source
    source.close()


async def keep(blobs: BlobStore, source: File) -> Body:
    size_bytes = os.fstat(source.fileno()).st_size
    writer = blobs.body(size_bytes)
    await writer.write_source(source.of(size_bytes))
    assert writer.size_bytes == size_bytes
    body = await writer.finish()
    assert body.size_bytes == size_bytes
    return body


def path_of(blobs: BlobStore, body: Body) -> Path:
    assert body.blob is not None
    return blobs.path(body.blob)


def left(blobs: BlobStore) -> list[Path]:
    return [path for path in blobs.directory.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 3 * holes.READ_BYTES + 7, 20 << 20])
async def test_files_of_any_size(blobs: BlobStore, source: File, size: int) -> None:
    data = os.urandom(size)
    os.pwrite(source.fileno(), data, 0)
    body = await keep(blobs, source)
    if size <= INLINE_BYTES:
        assert (body.inline, body.blob) == (data, None)
    else:
        assert path_of(blobs, body).read_bytes() == data


async def test_a_file_that_is_all_hole(blobs: BlobStore, source: File) -> None:
    os.truncate(source.fileno(), 1 << 30)
    path = path_of(blobs, await keep(blobs, source))
    assert path.stat().st_size == 1 << 30
    assert path.stat().st_blocks * 512 < 1 << 20


@settings(max_examples=40, deadline=None)
@given(
    pages=st.lists(st.booleans(), min_size=9, max_size=200),
    tail=st.integers(0, PAGE - 1),
    step=st.sampled_from([1, 3 * PAGE, blobs_module.COPY_BYTES]),
)
def test_data_and_holes_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, pages: list[bool], tail: int, step: int
) -> None:
    folder = tmp_path_factory.mktemp("holes")
    size = len(pages) * PAGE + tail
    with (folder / "a").open("w+b", buffering=0) as source, (folder / "b").open("w+b", buffering=0) as copy:
        for number, is_data in enumerate(pages):
            if is_data:
                os.pwrite(source.fileno(), os.urandom(PAGE), number * PAGE)
        source.truncate(size)
        at, steps = 0, 0
        while at < size:
            at = holes.copy(source.fileno(), at, size, copy, step)
            steps += 1
        assert copy.tell() == size
        assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
        assert os.fstat(copy.fileno()).st_blocks <= os.fstat(source.fileno()).st_blocks
        # Each step gets somewhere, and the smallest no farther than one extent.
        extents = sum(is_data and not before for before, is_data in zip([False, *pages], pages, strict=False))
        assert steps <= extents + 1
        assert step > 1 or steps >= extents


async def test_what_was_written_before_comes_first(blobs: BlobStore, source: File) -> None:
    data = os.urandom(100_000)
    os.pwrite(source.fileno(), data, PAGE)
    os.truncate(source.fileno(), 200_000)
    for before in (b"few", os.urandom(300_000)):
        writer = blobs.body()
        await writer.write(before)
        await writer.write_source(source.of(200_000))
        await writer.write(b"after")
        whole = bytes(PAGE) + data + bytes(200_000 - PAGE - len(data))
        assert path_of(blobs, await writer.finish()).read_bytes() == before + whole + b"after"


async def test_only_as_much_as_is_asked_for(blobs: BlobStore, source: File) -> None:
    os.pwrite(source.fileno(), os.urandom(100_000), 0)
    writer = blobs.body()
    await writer.write_source(source.of(50_000))
    assert path_of(blobs, await writer.finish()).stat().st_size == 50_000


@pytest.mark.parametrize("size", [100, 100_000])
async def test_more_than_the_limit(blobs: BlobStore, source: File, size: int) -> None:
    os.pwrite(source.fileno(), bytes(size), 0)
    writer = blobs.body(size - 1)
    with pytest.raises(BlobTooLarge):
        await writer.write_source(source.of(size))
    await writer.abort()
    assert left(blobs) == []


@pytest.mark.parametrize("size", [100, 100_000, 20 << 20])
@pytest.mark.parametrize("by", [1, 99])
async def test_a_file_that_became_shorter(blobs: BlobStore, source: File, size: int, by: int) -> None:
    os.pwrite(source.fileno(), os.urandom(size), 0)
    os.truncate(source.fileno(), size - by)
    writer = blobs.body()
    with pytest.raises(SourceUnreadable, match="shorter"):
        await writer.write_source(source.of(size))
    await writer.abort()
    assert left(blobs) == []
    assert blobs.being_written == set()


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_PATH])
async def test_a_descriptor_that_cannot_be_read(
    blobs: BlobStore, tmp_path: Path, size: int, flags: int
) -> None:
    (tmp_path / "source").write_bytes(bytes(size))
    source = OpenFile(os.open(tmp_path / "source", flags))
    writer = blobs.body()
    with pytest.raises(SourceUnreadable, match="Bad file descriptor"):
        await writer.write_source(source)
    source.close()
    await writer.abort()
    assert left(blobs) == []


async def test_a_disk_that_fills_up_meanwhile(
    blobs: BlobStore, source: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 3 * blobs_module.COPY_BYTES
    os.pwrite(source.fileno(), os.urandom(size), 0)
    blobs.min_free_bytes = 1
    asked = 0

    def free_bytes(directory: Path) -> int:
        nonlocal asked
        asked += 1
        return 1 << 40 if asked < 3 else 0

    monkeypatch.setattr(faults, "free_bytes", free_bytes)
    writer = blobs.body()
    with pytest.raises(DiskFull):
        await writer.write_source(source.of(size))
    (unfinished,) = left(blobs)
    assert unfinished.stat().st_size < size
    await writer.abort()
    assert left(blobs) == []


async def test_whoever_is_cancelled_may_close_the_file_at_once(
    blobs: BlobStore, source: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.pwrite(source.fileno(), os.urandom(100_000), 0)
    copy, began, go_on = holes.copy, threading.Event(), threading.Event()
    done = []

    def slow(fd: int, at: int, *rest: object) -> int:
        began.set()
        go_on.wait(10)
        reached: int = copy(fd, at, *rest)  # type: ignore[arg-type]
        done.append(reached)
        return reached

    monkeypatch.setattr(holes, "copy", slow)
    writer = blobs.body()
    copying = asyncio.create_task(writer.write_source(source.of(100_000)))
    await asyncio.to_thread(began.wait, 10)
    for _ in range(3):
        copying.cancel()
        await asyncio.sleep(0.01)
        assert not copying.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert done == [100_000]
    await writer.abort()
    assert left(blobs) == []
