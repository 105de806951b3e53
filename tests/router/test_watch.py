"""The file's watch: edits in place, replacements and swung links are seen; mistakes leave the last good
table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router.config import ConfigError
from router.watch import ConfigFile

GOOD = 'version: {v}\nsets: {{a: {{url: "http://h:1"}}}}\ndefault: {{weights: {{a: 100}}}}\n'


def good(version: int) -> str:
    return GOOD.format(v=version)


def opened(path: Path, state: Path | None = None) -> ConfigFile:
    return ConfigFile(path, last_good_path=state, set_urls={})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text(good(1))
    return path


def test_nothing_changed_is_nothing_new(path: Path) -> None:
    file = opened(path)
    assert file.first().table.version == 1
    assert file.poll() is None


def test_an_edit_in_place_of_the_same_size_is_seen(path: Path) -> None:
    file = opened(path)
    file.first()
    file.poll()
    before = path.stat()
    with path.open("r+") as opened_file:
        opened_file.write(good(2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a clock too coarse to tell
    loaded = file.poll()
    assert loaded is not None
    assert loaded.table.version == 2


def test_a_replacement_and_a_swung_link_are_seen(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    file = opened(link)
    file.first()
    other = tmp_path / "other.yaml"
    other.write_text(good(3))
    swung = tmp_path / "swung"
    swung.symlink_to(other)
    os.replace(swung, link)
    loaded = file.poll()
    assert loaded is not None
    assert loaded.table.version == 3
    new = tmp_path / "new.yaml"
    new.write_text(good(4))
    os.replace(new, other)
    loaded = file.poll()
    assert loaded is not None
    assert loaded.table.version == 4


@pytest.mark.parametrize("text", ["", "version: 1\n", "nonsense: [", good(2).replace("100", "99.99")])
def test_mistakes_leave_the_last_good_table_loudly(
    path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = opened(path)
    file.first()
    path.write_text(text)
    assert file.poll() is None
    assert file.error
    assert file.failures == 1
    assert "version 1 stays in force" in caplog.text
    assert file.poll() is None
    assert file.failures == 1  # told once, not twice a second
    path.write_text(good(1))
    assert file.poll() is None
    assert file.error is None  # back to what is in force: nothing new, and no error either


def test_a_file_that_vanishes_or_cannot_be_read_leaves_the_last_good_table(path: Path) -> None:
    file = opened(path)
    file.first()
    path.unlink()
    assert file.poll() is None
    assert file.error is not None
    assert "cannot be read" in file.error
    path.mkdir()
    assert file.poll() is None
    path.rmdir()
    path.write_text(good(5))
    loaded = file.poll()
    assert loaded is not None
    assert file.error is None


def test_a_version_that_does_not_grow_is_taken_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(good(5))
    file = opened(path)
    file.first()
    path.write_text(good(4))
    loaded = file.poll()
    assert loaded is not None
    assert loaded.table.version == 4
    assert "does not grow" in caplog.text


def test_a_restart_with_a_broken_file_serves_the_last_good_copy(path: Path, tmp_path: Path) -> None:
    state = tmp_path / "state" / "last-good.yaml"
    opened(path, state).first()
    path.write_text("broken: [")
    file = opened(path, state)
    assert file.first().table.version == 1
    assert file.error is not None
    assert "broken" in path.read_text()  # the operators' file is theirs


def test_a_first_start_with_a_broken_file_fails(path: Path, tmp_path: Path) -> None:
    path.write_text("broken: [")
    with pytest.raises(ConfigError):
        opened(path, tmp_path / "none.yaml").first()
