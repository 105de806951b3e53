"""A node that is cut off in the bench: its tasks run elsewhere, and the bench leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.bench.cutoff import measure
from tests.conftest import ROOT

PARENT = """
import subprocess, sys
from ops.bench.stack import die_with_parent
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, preexec_fn=die_with_parent)
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.timeout(300)
def test_the_tasks_of_a_node_that_is_cut_off_run_elsewhere(tmp_path: Path) -> None:
    found = measure(tmp_path, 1)
    assert found
    assert min(found) > 0


def test_what_a_bench_has_started_ends_when_the_bench_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert running(child)
        os.kill(parent.pid, signal.SIGKILL)
    while running(child):
        time.sleep(0.02)


def running(pid: int) -> bool:
    """False also for a process that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
