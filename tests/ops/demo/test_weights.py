"""The demo edits the router's file as an operator would, and puts it back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.demo.errors import DemoFailed
from ops.demo.weights import WeightsFile, flow, other_weights

TEXT = """\
# kept
sets:
  a: {url: "http://127.0.0.1:1", state: ready}
rules:
  - {name: early, when: {image: {prefix: "ocr/"}}, weights: {a: 1, b: 99}}
default:
  key: [client]
  weights: {a: 95, b: 5} # kept, too
retry: {attempts: 2}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def test_only_the_default_weights_change(path: Path) -> None:
    file = WeightsFile(path)
    assert file.weights == {"a": 95, "b": 5}
    file.change({"a": 50, "b": 50})
    assert path.read_text() == TEXT.replace("weights: {a: 95, b: 5}", "weights: {a: 50, b: 50}")
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_restore_gives_back_every_byte(path: Path) -> None:
    file = WeightsFile(path)
    file.change({"a": 50, "b": 50})
    file.change({"a": 12.5, "b": 87.5})
    assert file.restore()
    assert path.read_text() == TEXT
    assert file.restore()


def test_restore_before_a_change_touches_nothing(path: Path) -> None:
    before = path.stat()
    assert WeightsFile(path).restore()
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_an_operators_edit_meanwhile_wins(path: Path) -> None:
    file = WeightsFile(path)
    file.change({"a": 50, "b": 50})
    path.write_text("theirs")
    assert not file.restore()
    assert path.read_text() == "theirs"


def test_a_file_without_such_weights_is_told(path: Path) -> None:
    path.write_text("default:\n  weights:\n    a: 100\n")
    with pytest.raises(DemoFailed, match="no `weights"):
        _ = WeightsFile(path).weights


@pytest.mark.parametrize(
    ("weights", "other"),
    [
        ({"a": 95.0, "b": 5.0}, {"a": 50, "b": 50}),
        ({"a": 50.0, "b": 50.0}, {"a": 80, "b": 20}),
        ({"a": 25.0, "b": 25.0, "c": 25.0, "d": 25.0}, {"a": 80, "b": 20 / 3, "c": 20 / 3, "d": 20 / 3}),
    ],
)
def test_other_weights_are_other_and_whole(weights: dict[str, float], other: dict[str, float]) -> None:
    assert other_weights(weights) == other
    assert sum(other.values()) == pytest.approx(100)


def test_flow_style_is_short() -> None:
    assert flow({"a": 95.0, "b": 4.5, "c": 0.5}) == "{a: 95, b: 4.5, c: 0.5}"
