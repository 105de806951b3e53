"""An installation's identity: made once, kept, never shared with a copy."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scheduler.installation import FILE, identify, known


def test_it_is_made_once_and_survives_restarts(tmp_path: Path) -> None:
    assert known(tmp_path) is None
    first = identify(tmp_path)
    assert len(first) == 12
    assert [identify(tmp_path), known(tmp_path)] == [first, first]


def test_two_folders_have_two(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert identify(tmp_path / "a") != identify(tmp_path / "b")


def test_a_renamed_folder_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    first = identify(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert identify(tmp_path / "new") == first


def test_a_copied_folder_gets_one_of_its_own_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    first = identify(tmp_path / "original")
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    with capture_logs() as lines:
        second = identify(tmp_path / "copy")
    assert second != first
    assert [(line["old"], line["new"]) for line in lines] == [(first, second)]
    assert identify(tmp_path / "copy") == second
    assert identify(tmp_path / "original") == first


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\xff" * 100, b"0123456789ab inode", b"x" * 12 + b" inode 1\n"]
)
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert known(tmp_path) is None
    assert identify(tmp_path) == known(tmp_path)


def test_processes_that_start_at_once_find_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(identify, [tmp_path] * 8))
    assert len(set(found)) == 1


def test_a_full_disk_keeps_no_set_from_starting(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with capture_logs() as lines:
            found = identify(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert len(found) == 12
    assert "cannot be stored" in lines[0]["event"]
    assert os.path.getsize(tmp_path / FILE) == 0
