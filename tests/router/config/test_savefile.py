"""Saving over the operators' file: mode, owner and links stay; nobody's edit is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from router.config import savefile
from router.config.edit import EditError
from router.config.savefile import ChangedMeanwhile, create, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text("old")
    return path


def test_the_file_is_replaced_whole_with_its_mode(path: Path) -> None:
    path.chmod(0o640)
    inode = path.stat().st_ino
    with opened(path) as file:
        assert file.text == b"old"
        file.save(b"new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_ino != inode
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_owner_stays(path: Path) -> None:
    os.chown(path, 12345, 23456)
    with opened(path) as file:
        file.save(b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to("router.yaml")
    with opened(link) as file:
        file.save(b"new")
    assert link.is_symlink()
    assert path.read_text() == "new"


def test_an_edit_in_between_is_never_lost(path: Path) -> None:
    with opened(path) as file:
        path.write_text("theirs")
        with pytest.raises(ChangedMeanwhile):
            file.save(b"ours")
    assert path.read_text() == "theirs"
    # Also where somebody put another file there with the same content.
    with opened(path) as file:
        other = path.with_name("other")
        other.write_text("theirs")
        other.replace(path)
        with pytest.raises(ChangedMeanwhile):
            file.save(b"ours")


def test_a_link_swung_in_between_is_seen(path: Path, tmp_path: Path) -> None:
    link, other = tmp_path / "link.yaml", tmp_path / "other.yaml"
    other.write_text("old")
    link.symlink_to(path)
    with opened(link) as file:
        link.unlink()
        link.symlink_to(other)
        with pytest.raises(ChangedMeanwhile):
            file.save(b"ours")
    assert (path.read_text(), other.read_text()) == ("old", "old")


def test_a_file_that_cannot_be_replaced_is_written_in_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a single file that is mounted into a container."""

    def busy(self: Path, target: Path) -> Path:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    inode = path.stat().st_ino
    with opened(path) as file:
        file.save(b"longer than before")
    with opened(path) as file:
        file.save(b"short")
    assert path.read_text() == "short"
    assert path.stat().st_ino == inode
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with opened(path) as file, pytest.raises(EditError, match="No space left"):
        file.save(b"new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_two_edits_take_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    inside = threading.Event()
    release = threading.Event()

    def first() -> None:
        with opened(path) as file:
            inside.set()
            release.wait(10)
            file.save(b"first")
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    threading.Timer(0.2, release.set).start()
    with opened(path) as file:
        assert file.text == b"first"
        file.save(b"second")
    thread.join()
    assert order == ["first"]
    assert path.read_text() == "second"


def test_a_turn_that_never_comes_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(savefile, "LOCK_TIMEOUT_S", 0.1)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(EditError, match="another command"), opened(path):
            pass


def test_a_kubernetes_volume_is_left_alone(tmp_path: Path) -> None:
    real = tmp_path / "..2026_11_23_00_00_00.123"
    real.mkdir()
    (real / "router.yaml").write_text("old")
    (tmp_path / "..data").symlink_to(real.name)
    link = tmp_path / "router.yaml"
    link.symlink_to("..data/router.yaml")
    with pytest.raises(EditError, match="ConfigMap"), opened(link):
        pass


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(EditError), opened(path):
            pass
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EditError, match="no regular file"), opened(tmp_path / "pipe"):
        pass


def test_a_file_is_created_only_where_none_is(tmp_path: Path) -> None:
    create(tmp_path / "file", b"one")
    with pytest.raises(ChangedMeanwhile):
        create(tmp_path / "file", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"one"
    with pytest.raises(EditError, match="cannot be written"):
        create(tmp_path / "no" / "file", b"one")
