"""The simulated crowd: real links to played nodes, and every slot runs a task before it is idle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.bench.cluster import crowd
from ops.bench.crowd import decision_us, measure
from tests.conftest import ROOT

PARENT = "import sys; from pathlib import Path; from ops.bench.crowd import measure; measure(Path(sys.argv[1]), 2, 1)"


@pytest.mark.timeout(300)
def test_a_small_crowd_is_measured_to_its_end(tmp_path: Path) -> None:
    found = measure(tmp_path, 3, 4)
    assert (found["links"], found["slots"]) == (3, 12)
    assert 0 < found["now_mib"] <= found["peak_mib"] < 300


@pytest.mark.timeout(300)
def test_nodes_and_set_end_when_the_bench_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=ROOT) as parent:
        while not (children := sorted(children_of(parent.pid))):
            assert parent.poll() is None
            time.sleep(0.02)
        os.kill(parent.pid, signal.SIGKILL)
    while any(map(is_of_the_crowd, children)):
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in map(int, found) if is_of_the_crowd(child)]


def is_of_the_crowd(pid: int) -> bool:
    """False also for a process that has ended, or whose program is not there yet."""
    try:
        return b"-m\0ops.bench.crowd\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_decision_is_timed() -> None:
    assert 0 < decision_us(2, 3) < 10_000


@pytest.mark.timeout(300)
def test_the_rows_name_their_targets() -> None:
    memory, decision = crowd(2, 2)
    assert memory.target == "≤ 300 MiB"
    assert decision.text.endswith("µs")
