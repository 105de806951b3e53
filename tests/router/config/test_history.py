"""The history of configurations: what was in force, when, by whom; and what it knows after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.config.history import INDEX, Change, History, HistoryError, NoSuchVersion
from router.config.reader import load
from router.routing.table import Table, Weights

YAML = (
    'version: {v}\nchange: {{by: ops, why: "w{v}"}}\n'
    'sets: {{a: {{url: "http://h:1"}}, b: {{url: "http://h:2"}}}}\ndefault: {{weights: {{a: {a}, b: {b}}}}}\n'
)


def file(version: int, b: int = 5) -> tuple[bytes, Table]:
    text = YAML.format(v=version, a=100 - b, b=b).encode()
    return text, load(text).table


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "r1.history")


def test_every_file_is_kept_with_when_and_who(history: History) -> None:
    assert history.changes() == []
    for version in (1, 2):
        assert history.record(*file(version), now=100.0 + version)
    assert [(c.at, c.version, c.by, c.why) for c in history.changes()] == [
        (101.0, 1, "ops", "w1"),
        (102.0, 2, "ops", "w2"),
    ]
    assert history.text(history.find("1").digest) == file(1)[0]


def test_other_workers_and_restarts_tell_nothing_twice(history: History) -> None:
    assert history.record(*file(1), now=1.0)
    assert not History(history.folder).record(*file(1), now=2.0)
    text, table = file(1)
    overlaid = Table(
        table.version, table.sets, Weights(table.sets, {"a": 9000, "b": 1000}), digest=table.digest
    )
    assert history.record_weights(overlaid, "rollout", "step 1", 3.0)
    assert not history.record_weights(overlaid, "rollout", "step 1", 4.0)
    assert not history.record(text, table, 5.0)
    assert [change.weights for change in history.changes()] == [None, {"a": 9000, "b": 1000}]
    assert [change.version for change in history.files()] == [1]


def test_a_version_is_found_by_number_digest_or_as_the_one_before(history: History) -> None:
    for version in (1, 2, 3):
        history.record(*file(version), now=float(version))
    assert history.find(None).version == 2
    assert history.find("3").version == 3
    assert history.find(file(1)[1].digest[:8]).version == 1
    with pytest.raises(NoSuchVersion, match=r"'9'.*known: 3, 2, 1"):
        history.find("9")
    with pytest.raises(NoSuchVersion):
        history.find("abc")
    # The same number twice: the later one is meant.
    history.record(*file(2, b=50), now=4.0)
    assert history.find("2").digest == file(2, b=50)[1].digest


def test_without_another_version_there_is_none_before(history: History) -> None:
    with pytest.raises(NoSuchVersion):
        history.find(None)
    history.record(*file(1), now=1.0)
    with pytest.raises(NoSuchVersion):
        history.find(None)


def test_it_is_bounded_in_number_and_in_bytes(tmp_path: Path) -> None:
    few = History(tmp_path / "few", keep_changes=3)
    for version in range(10):
        few.record(*file(version), now=float(version))
    assert [change.version for change in few.changes()] == [7, 8, 9]
    assert len(list(few.folder.glob("*.yaml"))) == 3
    small = History(tmp_path / "small", keep_bytes=2 * len(file(1)[0]) + 10)
    for version in range(5):
        small.record(*file(version), now=float(version))
    assert [change.version for change in small.changes()] == [3, 4]
    one = History(tmp_path / "one", keep_bytes=1)
    one.record(*file(1), now=1.0)
    assert [change.version for change in one.changes()] == [1]


def test_lines_that_cannot_be_read_are_left_out(history: History) -> None:
    history.record(*file(1), now=1.0)
    with (history.folder / INDEX).open("ab") as index:
        index.write(b'{"at": 2\nnonsense\n{"at": 1.0, "version": 1, "digest": "../../etc/passwd"}\n')
    history.record(*file(2), now=3.0)
    assert [change.version for change in history.changes()] == [1, 2]


def test_what_ended_lately_is_read_again_with_the_rollouts_weights(history: History) -> None:
    urls = {"a": "http://other:9", "gone": "http://h:1"}
    history.record(*file(1, b=0), now=10.0)
    text, table = file(2, b=0)
    history.record(text, table, now=20.0)
    for at, b in ((30.0, 1000), (40.0, 5000)):
        shares = {"a": 10_000 - b, "b": b}
        over = Table(table.version, table.sets, Weights(table.sets, shares), digest=table.digest)
        history.record_weights(over, "rollout", "step", at)
    ended = history.ended_since(25.0, urls)
    assert [(at, each.default.shares.get("b")) for at, each in ended] == [(30.0, 0), (40.0, 1000)]
    assert ended[0][1].sets["a"].host == "other"
    (history.folder / f"{table.digest}.yaml").write_text("broken: [")
    assert [at for at, _ in history.ended_since(0.0, {})] == [20.0]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    history = History(tmp_path / "file" / "history")
    with pytest.raises(HistoryError, match="cannot be written"):
        history.record(*file(1), now=1.0)


def test_nobody_reads_other_files_through_it(history: History) -> None:
    history.record(*file(1), now=1.0)
    for digest in ("../lock", "lock", "", "0" * 64):
        with pytest.raises(HistoryError):
            history.text(digest)
    assert Change(1.0, 1, "d").weights is None
