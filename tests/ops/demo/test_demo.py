"""The demo for real: to its end, its lines pasted, and interrupted; the stack and the weights are as before."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.images.builder import NAMES, Builder
from ops.local.parts import Ports, variable_of
from ops.local.stack import Stack
from ops.setup import engine
from ops.setup.engine import ROOT
from tests.ops.test_stack import free_ports

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]
PATIENCE_S = 600
"""Longest wait for a program to end; far more than any takes on a machine with fifteen others to serve."""

ROUTER_FILE = ROOT / "ops/local/router.yaml"
SWEPT = [f"{size}.jpg" for size in (32, 64, 100, 160, 200, 320)]
READ = [f"page-{number}.png" for number in range(1, 5)]
DEMO = [sys.executable, "-m", "ops.demo"]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The stack of this checkout, at ports of its own unless it runs already; as it was, afterwards."""
    if shutil.which("curl") is None:
        packages = ROOT / "ops/setup/packages.sh"
        subprocess.run(["bash", packages, "curl, to paste the demo's lines", "curl"], cwd=ROOT, check=True)
    host = engine.up()
    Builder(host).build(NAMES)
    monkeypatch.setenv("DOCKER_HOST", host)
    stack = Stack(Ports.of(os.environ))
    if stack.runs:
        yield stack
        return
    ports = free_ports()
    for field in ("router", "admin", "set_a", "set_b"):
        monkeypatch.setenv(variable_of(field), str(getattr(ports, field)))
    stack = Stack(ports)
    yield stack
    stack.down(keep_engine=True)


def test_it_ends_with_a_summary_and_its_lines_can_be_pasted(stack: Stack) -> None:
    stack.up()
    before = ROUTER_FILE.read_bytes()
    pids = [part.pid for part in stack.parts]
    done = subprocess.run(DEMO, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Summary" in done.stdout
    assert "the stack stays up" in done.stdout
    assert ROUTER_FILE.read_bytes() == before
    assert [part.pid for part in stack.parts] == pids

    lines = re.findall(r"^ *\$ ((?:curl|for) .*)$", done.stdout, re.MULTILINE)
    assert len(lines) == 9
    _try_maps(re.findall(r"^ *\$ (GC_URL=.*)$", done.stdout, re.MULTILINE))
    for line in lines:
        for target in re.findall(r"-o (var/demo/\S+)", line):
            (ROOT / target).unlink()
        pasted = subprocess.run(
            ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert pasted.returncode == 0, line + pasted.stderr
        assert "problem" not in pasted.stdout
        for target in re.findall(r"-o (var/demo/\S+)", line):
            assert (ROOT / target).stat().st_size > 100
            assert not (ROOT / target).read_bytes().startswith(b"{")


def _try_maps(lines: list[str]) -> None:
    """The sweep and the folder of pages, as a user types them: each result is there again."""
    assert len(lines) == 2
    for line, names in zip(lines, (SWEPT, READ), strict=True):
        (target,) = re.findall(r"-o (var/demo/\S+)", line)
        shutil.rmtree(ROOT / target)
        pasted = subprocess.run(
            ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert pasted.returncode == 0, line + pasted.stderr
        assert f"succeeded: {len(names)} succeeded of {len(names)} inputs" in pasted.stdout
        assert {path.name for path in (ROOT / target).iterdir()} == {*names, ".gcompute-map.json"}


def test_interrupted_it_cleans_up(stack: Stack) -> None:
    before, ran = ROUTER_FILE.read_bytes(), stack.runs
    with subprocess.Popen(DEMO, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        said = []
        for line in demo.stdout:
            said.append(line)
            if "again, by the new weights" in line:
                break
        assert ROUTER_FILE.read_bytes() != before, "".join(said)
        demo.send_signal(signal.SIGINT)
        _, complaints = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 130, complaints
    assert "interrupted" in complaints
    assert ROUTER_FILE.read_bytes() == before
    assert stack.runs == ran


def test_a_failed_step_ends_it_with_its_reason(stack: Stack, tmp_path: Path) -> None:
    stack.up()
    pids = [part.pid for part in stack.parts]
    script = (
        "import ops.images.pictures as p, pathlib, sys;"
        f"f = pathlib.Path({str(tmp_path)!r}) / 'broken.jpg'; f.write_bytes(b'no picture');"
        "p.photograph = lambda: f;"
        "from ops.demo.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 1
    assert "demo: stopped early:" in done.stderr
    assert "Summary" not in done.stdout
    assert [part.pid for part in stack.parts] == pids
