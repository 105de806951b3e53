"""A node's folder: what is laid out, and that what is there already stays."""

from __future__ import annotations

from pathlib import Path

from ops.nomad.node import features, lay_out, layout
from scheduler.launchers.nomad.node_files import FEATURES
from sets.cpu import cpu_features


def test_a_folder_is_laid_out_once(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    made = lay_out(folder)
    assert str(folder / FEATURES) in made
    assert made == [str(item.path) for item in layout(folder)]
    assert lay_out(folder) == []


def test_the_features_of_the_node_are_written_again_only_when_they_change(tmp_path: Path) -> None:
    lay_out(tmp_path)
    file = tmp_path / FEATURES
    text, inode = file.read_text(), file.stat().st_ino
    assert text == features(cpu_features())
    lay_out(tmp_path)
    assert file.stat().st_ino == inode
    file.write_text(features(["mmx"]))
    assert lay_out(tmp_path) == [str(file)]
    assert file.read_text() == text


def test_features_are_metadata_of_a_client() -> None:
    text = features(["avx2", "3dnow", "sse4_1"])
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#") and line]
    assert lines == [
        "client {",
        "meta {",
        'gc_cpu_3dnow = "1"',
        'gc_cpu_avx2 = "1"',
        'gc_cpu_sse4_1 = "1"',
        "}",
        "}",
    ]


def test_a_flag_that_would_break_out_of_its_key_is_left_out() -> None:
    assert "evil" not in features(['a = "1"\n evil'])
