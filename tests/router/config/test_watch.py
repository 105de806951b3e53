"""The file's watch: edits in place, replacements and swung links are seen; mistakes leave the last good
table."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.config import watch
from router.config.history import History
from router.config.reader import MAX_FILE_BYTES, ConfigError, Loaded, load
from router.config.watch import ConfigFile

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


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("", {}),
        ("change: {by: ops, why: a day}\n", {"changed_by": "ops", "changed_why": "a day"}),
        ("change: {why: a day}\n", {"changed_why": "a day"}),
    ],
)
def test_the_log_names_who_changed_the_file_and_why(path: Path, changed: str, told: dict[str, str]) -> None:
    path.write_text(good(1) + changed)
    with capture_logs() as lines:
        opened(path).first()
    in_force = {"event": "configuration in force", "log_level": "info", "file": str(path), "version": 1}
    assert lines == [in_force | told]


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


def test_an_edit_whose_time_was_put_back_is_seen_when_the_file_is_old(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "REREAD_YOUNGER_THAN_S", 0.0)
    os.utime(path, (1, 1))
    file = opened(path)
    file.first()
    assert file.poll() is None
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # The kernel's clock goes in steps.
        path.write_text(good(2))
        os.utime(path, (1, 1))
    loaded = file.poll()
    assert loaded is not None
    assert loaded.table.version == 2


@pytest.mark.parametrize("text", [good(2), "nonsense: ["])
def test_the_collector_rests_while_a_file_is_read_and_not_longer(
    path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    seen: list[bool] = []

    def noting(text: bytes, *, set_urls: Mapping[str, str]) -> Loaded:
        seen.append(gc.isenabled())
        return load(text, set_urls=set_urls)

    file = opened(path)
    file.first()
    monkeypatch.setattr(watch, "load", noting)
    path.write_text(text)
    file.poll()
    assert (seen, gc.isenabled()) == ([False], True)


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
def test_mistakes_leave_the_last_good_table_loudly(path: Path, text: str) -> None:
    file = opened(path)
    file.first()
    path.write_text(text)
    with capture_logs() as lines:
        assert file.poll() is None
    assert file.error
    assert file.failures == 1
    *mistakes, kept = lines
    assert {line["event"] for line in mistakes} == {"mistake in the configuration"}
    assert all(line["mistake"] for line in mistakes)
    assert kept["event"] == "configuration is not taken: the version before stays in force"
    assert (kept["log_level"], kept["file"], kept["version"]) == ("error", str(path), 1)
    with capture_logs() as lines:
        assert file.poll() is None
    assert lines == [], "told once, not twice a second"
    assert file.failures == 1
    path.write_text(good(1))
    with capture_logs() as lines:
        assert file.poll() is None
    assert [(line["event"], line["version"]) for line in lines] == [
        ("configuration is good again, as in force", 1)
    ]
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


def test_a_version_that_does_not_grow_is_taken_with_a_warning(path: Path) -> None:
    path.write_text(good(5))
    file = opened(path)
    file.first()
    path.write_text(good(4))
    with capture_logs() as lines:
        loaded = file.poll()
    assert loaded is not None
    assert loaded.table.version == 4
    warning = lines[0]
    assert warning["event"] == "version did not grow: taken anyway, as after a revert"
    assert (warning["log_level"], warning["version"], warning["version_before"]) == ("warning", 4, 5)


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


# As Kubernetes, editors and accidents do it.


def test_a_kubernetes_volume_is_swung_whole(tmp_path: Path) -> None:
    """router.yaml → ..data/router.yaml, ..data → a folder of its time: only `..data` is swung."""
    for version in (1, 2):
        folder = tmp_path / f"..2026_11_23_00_00_0{version}"
        folder.mkdir()
        (folder / "router.yaml").write_text(good(version))
    (tmp_path / "..data").symlink_to("..2026_11_23_00_00_01")
    (tmp_path / "router.yaml").symlink_to("..data/router.yaml")
    file = opened(tmp_path / "router.yaml")
    assert file.first().table.version == 1
    (tmp_path / "..data_tmp").symlink_to("..2026_11_23_00_00_02")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    loaded = file.poll()
    assert loaded is not None
    assert loaded.table.version == 2


def test_a_link_to_nowhere_leaves_the_last_good_table(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    file = opened(link)
    file.first()
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    assert file.poll() is None
    assert file.error is not None
    link.unlink()
    link.symlink_to(link)
    assert file.poll() is None
    assert "cannot be read" in str(file.error)
    link.unlink()
    link.symlink_to(path)
    assert file.poll() is None
    assert file.error is None


@pytest.mark.parametrize("length", range(0, len(good(2)) - 2, 7))
def test_a_truncated_file_is_never_half_a_table(path: Path, length: int) -> None:
    file = opened(path)
    file.first()
    path.write_text(good(2)[:length])
    assert file.poll() is None
    assert file.error is not None
    assert file.loaded is not None
    assert file.loaded.table.version == 1


def test_a_file_that_is_being_written_is_looked_at_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half that is a table of its own: the rules are still to come."""
    whole = good(2) + "rules: [{name: qa, when: {account: acme}, to: a}]\n"
    file = opened(path)
    file.first()
    path.write_text(good(2))
    monkeypatch.setattr("router.config.watch.time.sleep", lambda _: path.write_text(whole))
    assert file.poll() is None
    monkeypatch.undo()
    loaded = file.poll()
    assert loaded is not None
    assert [rule.name for rule in loaded.table.rules] == ["qa"]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_file_leaves_the_last_good_table(path: Path) -> None:
    file = opened(path)
    file.first()
    path.write_text(good(2))
    path.chmod(0)
    with as_nobody():
        assert file.poll() is None
    assert "Permission denied" in str(file.error)
    path.chmod(0o644)
    loaded = file.poll()
    assert loaded is not None
    assert loaded.table.version == 2


def test_a_pipe_in_its_place_is_not_waited_for(path: Path) -> None:
    file = opened(path)
    file.first()
    path.unlink()
    os.mkfifo(path)
    done = threading.Thread(target=file.poll, daemon=True)
    done.start()
    done.join(10)
    assert not done.is_alive()
    assert "no regular file" in str(file.error)


def test_a_file_that_is_too_large_is_not_taken(path: Path) -> None:
    file = opened(path)
    file.first()
    path.write_text(good(2) + "# " + "x" * MAX_FILE_BYTES)
    assert file.poll() is None
    assert "larger than" in str(file.error)


def test_binary_rubbish_is_not_taken(path: Path) -> None:
    file = opened(path)
    file.first()
    for rubbish in (b"\0" * 100, b"\xff\xfe" + good(2).encode("utf-16-le"), os.urandom(500)):
        path.write_bytes(rubbish)
        assert file.poll() is None
        assert file.error is not None


def test_the_history_is_told_of_what_comes_into_force_and_of_nothing_else(path: Path, tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    file = ConfigFile(path, last_good_path=None, set_urls={}, history=history)
    file.first()
    path.write_text("broken: [")
    file.poll()
    path.write_text(good(2))
    file.poll()
    assert [change.version for change in history.changes()] == [1, 2]


def test_a_history_that_cannot_be_written_stops_nothing(path: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    file = ConfigFile(path, last_good_path=None, set_urls={}, history=History(tmp_path / "taken"))
    with capture_logs() as lines:
        assert file.first().table.version == 1
    assert [line["version"] for line in lines if line["event"] == "version is not in the history"] == [1]
