"""The name of the build that runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sets.build import BUILD_CHARS, VARIABLE, build_name


@pytest.fixture(autouse=True)
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("one")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    for words in (["init", "--quiet"], ["add", "file"], [*who, "commit", "--quiet", "--message=x"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    return tmp_path


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout[:12]


def test_a_checkout_tells_its_commit_and_whether_files_changed(checkout: Path) -> None:
    version, _, commit = build_name(checkout).partition("+")
    assert version[0].isdigit()
    assert commit == commit_of(checkout)
    (checkout / "file").write_text("two")
    assert build_name(checkout).endswith(f"+{commit}.dirty")


def test_elsewhere_the_version_is_the_build_also_below_another_checkout(checkout: Path) -> None:
    installed = checkout / "site-packages"
    installed.mkdir()
    assert build_name(installed)[0].isdigit()
    assert "+" not in build_name(installed)


def test_git_that_does_not_answer_leaves_the_version(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere")
    assert "+" not in build_name(tmp_path)


def test_an_operator_names_the_build_in_one_line(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2026.11-rc1\n\x1b[31m")
    assert build_name(checkout) == "2026.11-rc1[31m"
    monkeypatch.setenv(VARIABLE, "x" * 1000)
    assert build_name(checkout) == "x" * BUILD_CHARS
