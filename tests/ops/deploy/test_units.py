"""The systemd units: systemd takes them, and what they start exists and accepts their arguments."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from router.assembly import Settings
from sets.config import SetConfig
from sets.executor_config import ExecutorConfig
from sets.server import CLOSE_TIMEOUT_S
from tests.conftest import ROOT

UNITS = sorted((ROOT / "ops/deploy/systemd").glob("*.service"))
PROGRAM = "/opt/general-compute/bin/gcompute"


def unit(path: Path) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    return parser


def command(path: Path) -> list[str]:
    words = shlex.split(unit(path)["Service"]["ExecStart"])
    assert words[0] == PROGRAM
    return words[1:]


def seconds(name: str) -> float:
    return float(unit(ROOT / "ops/deploy/systemd" / name)["Service"]["TimeoutStopSec"])


def test_every_part_has_its_unit() -> None:
    assert {command(path)[0] for path in UNITS} == {"set", "router", "executor", "registrar"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here: with it, the units are verified by systemd itself")
    # An instance of a template, and a program that exists on this machine.
    copy = tmp_path / path.name.replace("@.", "@a.")
    copy.write_text(path.read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    said = [
        line for line in done.stderr.splitlines() if path.name.partition("@")[0].partition(".")[0] in line
    ]
    assert said == []


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_program_accepts_the_arguments(path: Path) -> None:
    words = command(path)
    options = {word for word in words if word.startswith("--")}
    subcommand = [word for word in words[:2] if word.isalpha()]
    said = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", *subcommand, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Usage: gcompute " + " ".join(subcommand) in said
    assert all(f"{option} " in said for option in options)


def test_the_parts_have_time_to_drain() -> None:
    drain_s = SetConfig(name="a", state_dir="x").drain_timeout_s
    assert seconds("gcompute-set@.service") > drain_s + CLOSE_TIMEOUT_S
    executor = ExecutorConfig(node="n", state_dir="x", certificates="x", sets={})
    assert seconds("gcompute-executor.service") > executor.drain_timeout_s
    assert seconds("gcompute-router.service") > Settings(Path("router.yaml")).drain_s + 5


def test_only_what_needs_the_host_runs_as_root() -> None:
    users = {path.name: unit(path)["Service"].get("User", "root") for path in UNITS}
    assert {name for name, user in users.items() if user == "root"} == {
        "gcompute-set@.service",
        "gcompute-executor.service",
    }
    declared = (ROOT / "ops/deploy/systemd/gcompute.sysusers").read_text()
    assert all(f"u {user} " in declared for user in users.values() if user != "root")


def test_a_file_with_mistakes_is_not_tried_again_and_again() -> None:
    for path in UNITS:
        assert unit(path)["Service"]["RestartPreventExitStatus"] == "78"
