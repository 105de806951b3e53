"""A file's lock: one holder at a time, and a wait that ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.file_lock import FileLock, wait_for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lock"


def test_a_lock_has_one_holder_until_it_is_released(path: Path) -> None:
    one, other = FileLock(path), FileLock(path)
    assert one.take()
    assert not other.take()
    assert one.take(), "it holds it already"
    one.release()
    assert other.take()
    assert not one.take()
    one.release()  # It holds nothing: no effect on the other.
    assert not one.take()


def test_a_wait_for_a_lock_ends(path: Path) -> None:
    holder = FileLock(path)
    with FileLock(path).waited_for(60):
        assert not holder.take()
    assert holder.take(), "the lock is free after the block"
    with pytest.raises(TimeoutError), FileLock(path).waited_for(0):
        pytest.fail("the lock is taken")


def test_a_wait_takes_the_lock_of_an_open_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("version: 1\n")
    with path.open("rb") as file:
        wait_for(file.fileno(), 60)
        assert not FileLock(path).take()
    assert FileLock(path).take()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    with pytest.raises(OSError, match="File exists"):
        FileLock(tmp_path / "state" / "lock").take()
