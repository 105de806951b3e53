"""An executor's configuration: strict, and clear about the mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.lock import FileLock
from scheduler.policy.node import NodeFacts
from sets.executor_config import parse
from sets.executor_server import LOCK_FILE, main
from sets.yaml_file import ConfigError

GOOD = "node: n1\nstate_dir: var/x\ncertificates: certs/n1\n"


def test_each_set_has_a_share_of_its_own() -> None:
    text = GOOD + "sets: {a: {cores: 1.5, memory_mib: 512, max_slots: 3}, b: {}}\n"
    shares = parse(text, "x.yaml").shares(frozenset({"avx2"}))
    assert shares["a"] == NodeFacts("n1", 150, 512, 3, frozenset({"avx2"}))
    assert shares["b"].cpu_percent >= 100
    assert shares["b"].max_slots == 32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        (GOOD, "sets"),
        (GOOD + "sets: {}\n", "no set may run tasks here"),
        (GOOD + "sets: {A: {}}\n", "sets: 'A' is not lower-case"),
        (GOOD + "sets: {a: {colour: red}}\n", "colour"),
        (GOOD + "sets: {a: {cores: 0}}\n", "cores"),
        (GOOD + "sets: {a: {}}\nlog_level: loud\n", "log_level: 'loud' is none of critical, debug, error"),
        (GOOD + "sets: {a: {}, a: {}}\n", "'a' appears twice"),
        (GOOD + "sets: {a: {}}\nbind: nowhere\n", "bind: 'nowhere' is not like"),
        (GOOD + "sets: {a: {}}\nbind: 10.0.0.1:99999\n", "bind"),
        (GOOD.replace("n1", "N1.x", 1) + "sets: {a: {}}\n", "node: 'N1.x' is not lower-case"),
    ],
)
def test_mistakes_are_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (False, "No such file"),
        (True, "ca.pem cannot be used: No such file"),
    ],
)
def test_an_executor_that_cannot_start_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: bool, said: str
) -> None:
    path = tmp_path / "executor.yaml"
    if write:
        path.write_text(
            f"node: n1\nstate_dir: {tmp_path / 'state'}\ncertificates: {tmp_path / 'none'}\nsets: {{a: {{}}}}\n"
        )
    assert main(path) == 78
    assert said in capsys.readouterr().err


def test_two_executors_cannot_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They would remove each other's slots."""
    state = tmp_path / "state"
    state.mkdir()
    first = FileLock(state / LOCK_FILE)
    first.take()
    path = tmp_path / "executor.yaml"
    path.write_text(f"node: n1\nstate_dir: {state}\ncertificates: {tmp_path}\nsets: {{a: {{}}}}\n")
    assert main(path) == 78
    assert "in use by process" in capsys.readouterr().err
    first.release()
