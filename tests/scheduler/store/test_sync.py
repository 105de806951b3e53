"""Files are written again where a sync failed, and keep what they hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.store.sqlite import SqliteStore
from scheduler.store.sync import PIECE_BYTES, write_again
from tests.conftest import ROOT

KILLED = """
import asyncio, os, sys
from pathlib import Path
from scheduler.store.contract import Body
from scheduler.store.sqlite import SqliteStore
from tests.scheduler.store.samples import a_task

async def main():
    store = SqliteStore(Path(sys.argv[1]), min_free_mib=0)
    await store.open()
    await store.add(a_task(), Body(0, b""), None)
    os._exit(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 7])
def test_all_of_a_file_is_written_again_as_it_was(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    content = os.urandom(size)
    file.write_bytes(content)
    written: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def noted(fd: int, data: bytes, at: int) -> int:
        written.append((at, len(data)))
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", noted)
    write_again(file)
    assert file.read_bytes() == content
    assert sum(count for _, count in written) == size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The store of a process that was killed after it had added a task."""
    path = tmp_path / "tasks.db"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=True)
    return path


async def test_a_store_writes_the_log_of_a_killed_process_again_before_it_reads_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = path.with_name("tasks.db-wal")
    before = log.read_bytes()
    written: list[bytes] = []

    def noted(file: Path) -> None:
        assert file == log
        written.append(file.read_bytes())

    monkeypatch.setattr("scheduler.store.sqlite.write_again", noted)
    store = SqliteStore(path, min_free_mib=0)
    await store.open()
    assert written == [before]
    assert len([task async for task in store.unfinished()]) == 1
    await store.close()
