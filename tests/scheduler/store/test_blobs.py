"""Blobs show up whole or not at all, and nothing is left of the rest."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import DiskFull, StoreError
from scheduler.store import blobs as blobs_module
from scheduler.store.blobs import CHUNK_BYTES, BlobMissing, BlobStore, BlobTooLarge
from scheduler.store.contract import INLINE_BYTES, Blobs, Body


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[BlobStore]:
    blobs = BlobStore(tmp_path / "blobs", min_free_mib=0)
    yield blobs
    blobs.close()


def read(blobs: BlobStore, name: str | None) -> bytes:
    assert name is not None
    source = blobs.open_read(name)
    data = os.pread(source.fileno(), source.size_bytes + 1, 0)
    source.close()
    return data


def files(blobs: BlobStore) -> list[Path]:
    return [path for path in blobs.directory.rglob("*") if path.is_file()]


def grow_old(path: Path) -> None:
    os.utime(path, (0, 0))


class TestWriter:
    async def test_shows_up_only_when_whole(self, blobs: BlobStore) -> None:
        writer = blobs.writer()
        await writer.write(b"x" * CHUNK_BYTES)
        with pytest.raises(BlobMissing):
            blobs.open_read(writer.name)
        await writer.write(b"y")
        name = await writer.commit()
        assert read(blobs, name) == b"x" * CHUNK_BYTES + b"y"
        assert files(blobs) == [blobs.directory / name[:2] / name]

    async def test_is_for_nobody_else_s_eyes(self, blobs: BlobStore) -> None:
        name = await blobs.writer().commit()
        path = blobs.path(name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    async def test_gathers_small_writes(self, blobs: BlobStore) -> None:
        writer = blobs.writer()
        for _ in range(CHUNK_BYTES // 1024 - 1):
            await writer.write(bytes(1024))
        assert files(blobs) == []
        await writer.write(bytes(1024))
        assert [path.stat().st_size for path in files(blobs)] == [CHUNK_BYTES]
        await writer.abort()

    async def test_abort_leaves_nothing(self, blobs: BlobStore) -> None:
        writer = blobs.writer()
        await writer.write(bytes(3 * CHUNK_BYTES))
        await writer.abort()
        await writer.abort()
        assert files(blobs) == []
        with pytest.raises(StoreError, match="ended"):
            await writer.write(b"more")

    async def test_abort_after_commit_is_harmless(self, blobs: BlobStore) -> None:
        writer = blobs.writer()
        await writer.write(b"abc")
        name = await writer.commit()
        await writer.abort()
        assert read(blobs, name) == b"abc"

    async def test_over_its_limit(self, blobs: BlobStore) -> None:
        writer = blobs.writer(limit_bytes=10)
        await writer.write(bytes(10))
        with pytest.raises(BlobTooLarge, match="10 bytes"):
            await writer.write(b"1")
        with pytest.raises(StoreError, match="not whole"):
            await writer.commit()
        await writer.abort()
        assert files(blobs) == []

    async def test_of_a_cancelled_caller_cannot_become_a_blob_with_a_hole(self, blobs: BlobStore) -> None:
        writer = blobs.writer()
        write = asyncio.ensure_future(writer.write(bytes(8 * CHUNK_BYTES)))
        await asyncio.sleep(0)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        with pytest.raises(StoreError, match="not whole"):
            await writer.commit()
        await writer.abort()
        assert files(blobs) == []

    async def test_refused_below_the_floor_of_free_disk(self, tmp_path: Path) -> None:
        blobs = BlobStore(tmp_path, min_free_mib=1 << 40)
        writer = blobs.writer()
        with pytest.raises(DiskFull, match="MiB are free"):
            await writer.write(bytes(CHUNK_BYTES))
        await writer.abort()
        assert files(blobs) == []
        blobs.close()

    async def test_many_at_once(self, blobs: BlobStore) -> None:
        async def one(fill: int) -> str:
            writer = blobs.writer()
            for _ in range(3):
                await writer.write(bytes([fill]) * CHUNK_BYTES)
            return await writer.commit()

        names = await asyncio.gather(*(one(fill) for fill in range(20)))
        for fill, name in enumerate(names):
            assert read(blobs, name) == bytes([fill]) * 3 * CHUNK_BYTES


class TestNames:
    @pytest.mark.parametrize(
        "name", ["", "../../etc/passwd", "A" * 32, "0" * 31, "0" * 32 + "\n", "unfinished"]
    )
    async def test_only_ours_are_opened(self, blobs: BlobStore, name: str) -> None:
        with pytest.raises(BlobMissing):
            blobs.open_read(name)
        with pytest.raises(BlobMissing):
            await blobs.delete([name])

    async def test_are_never_the_same(self, blobs: BlobStore) -> None:
        assert len({blobs.writer().name for _ in range(1_000)}) == 1_000


class TestDelete:
    async def test_deletes_and_forgives(self, blobs: BlobStore) -> None:
        name = await blobs.writer().commit()
        await blobs.delete([name, "0" * 32])
        await blobs.delete([name])
        with pytest.raises(BlobMissing):
            blobs.open_read(name)

    async def test_an_open_one_can_be_read_on(self, blobs: BlobStore) -> None:
        writer = blobs.writer()
        await writer.write(b"abc")
        name = await writer.commit()
        source = blobs.open_read(name)
        await blobs.delete([name])
        assert [piece async for piece in source.pieces()] == [b"abc"]
        source.close()


class TestSweep:
    async def test_removes_orphans_and_leftovers_but_nothing_young_or_in_use(self, blobs: BlobStore) -> None:
        used, orphan, young = [await blobs.writer().commit() for _ in range(3)]
        for name in (used, orphan):
            grow_old(blobs.path(name))
        leftover = blobs.directory / "unfinished" / ("0" * 32)
        leftover.write_bytes(b"of a killed process")
        grow_old(leftover)
        assert await blobs.sweep({used}, older_than_s=3600) == 2
        assert {path.name for path in files(blobs)} == {used, young}

    async def test_leaves_what_is_being_written(self, blobs: BlobStore) -> None:
        writer = blobs.writer()
        await writer.write(bytes(CHUNK_BYTES))
        grow_old(files(blobs)[0])
        assert await blobs.sweep(set(), older_than_s=3600) == 0
        await writer.commit()

    async def test_of_nothing(self, blobs: BlobStore) -> None:
        assert await blobs.sweep(set(), older_than_s=0) == 0


class TestBody:
    async def test_small_ones_touch_no_file(self, blobs: BlobStore) -> None:
        body = blobs.body()
        for _ in range(INLINE_BYTES // 1024):
            await body.write(bytes(1024))
        assert body.size_bytes == INLINE_BYTES
        assert await body.finish() == Body(INLINE_BYTES, bytes(INLINE_BYTES))
        assert not blobs.directory.exists()

    async def test_larger_ones_become_blobs(self, blobs: BlobStore) -> None:
        body = blobs.body()
        await body.write(b"a" * INLINE_BYTES)
        await body.write(b"b")
        stored = await body.finish()
        assert stored == Body(INLINE_BYTES + 1, blob=stored.blob)
        assert read(blobs, stored.blob) == b"a" * INLINE_BYTES + b"b"

    async def test_empty_is_inline(self, blobs: BlobStore) -> None:
        assert await blobs.body().finish() == Body(0, b"")

    async def test_abort_leaves_nothing_and_after_finish_is_harmless(self, blobs: BlobStore) -> None:
        kept, dropped, unwritten = blobs.body(), blobs.body(), blobs.body()
        for body in (kept, dropped):
            await body.write(bytes(2 * CHUNK_BYTES))
        stored = await kept.finish()
        for body in (kept, dropped, unwritten):
            await body.abort()
        assert [path.name for path in files(blobs)] == [stored.blob]
        assert await kept.finish() == stored
        for body in (dropped, unwritten):
            with pytest.raises(StoreError):
                await body.finish()

    @pytest.mark.parametrize("limit_bytes", [10, INLINE_BYTES + 10])
    async def test_over_its_limit(self, blobs: BlobStore, limit_bytes: int) -> None:
        body = blobs.body(limit_bytes)
        await body.write(bytes(limit_bytes))
        with pytest.raises(BlobTooLarge):
            await body.write(b"1")
        with pytest.raises(StoreError, match="not whole"):
            await body.finish()
        await body.abort()
        assert files(blobs) == []

    def test_is_the_contract_s(self, blobs: BlobStore) -> None:
        contract: Blobs = blobs
        assert contract.body().size_bytes == 0

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.integers(min_value=0, max_value=CHUNK_BYTES + 1), max_size=8),
        st.binary(min_size=1, max_size=7),
    )
    def test_gives_back_what_was_written(
        self, tmp_path_factory: pytest.TempPathFactory, sizes: list[int], pattern: bytes
    ) -> None:
        async def write_and_read() -> None:
            blobs = BlobStore(tmp_path_factory.mktemp("blobs"), min_free_mib=0)
            pieces = [(pattern * (size // len(pattern) + 1))[:size] for size in sizes]
            body = blobs.body()
            for piece in pieces:
                await body.write(piece)
            stored = await body.finish()
            whole = b"".join(pieces)
            assert stored.size_bytes == len(whole)
            assert (read(blobs, stored.blob) if stored.inline is None else stored.inline) == whole
            assert (stored.inline is None) == (len(whole) > INLINE_BYTES)
            blobs.close()

        asyncio.run(write_and_read())


async def test_a_folder_that_another_process_made_is_synced_before_a_blob_in_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been killed between the two, or be about to sync it."""
    folder = tmp_path / "blobs"
    for number in range(256):
        (folder / f"{number:02x}").mkdir(parents=True)
    synced: list[Path] = []
    monkeypatch.setattr(blobs_module, "sync_folder", synced.append)
    store = BlobStore(folder, min_free_mib=0)
    writer = store.writer()
    await writer.write(b"data")
    name = await writer.commit()
    store.close()
    # The names of the folder of all blobs, of that of this one, and of the blob itself.
    assert {tmp_path, folder, folder / name[:2]} <= set(synced)
    assert synced[-1] == folder / name[:2]
