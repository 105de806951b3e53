"""CPU time and memory of processes and all below them; cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench_router.machine import Cores, cpu_us, descendants, memory_mib, pinned

GRANDCHILD = "import time, sys; x = bytearray(64 << 20); x[::4096] = b'x' * len(x[::4096])\n"
BUSY = "while time.process_time() < 0.2: pass\nprint(flush=True); sys.stdin.read()"


def test_a_proxy_has_its_core_to_itself() -> None:
    assert Cores.of({1, 0}) == Cores(proxy=0, upstream=1, load=1)
    assert Cores.of({4, 5, 6, 7}) == Cores(proxy=4, upstream=5, load=6)


def test_one_core_is_not_enough() -> None:
    with pytest.raises(ValueError, match="two cores"):
        Cores.of({3})


def test_what_is_pinned_runs_there_only() -> None:
    core = min(os.sched_getaffinity(0))
    command = pinned(core, sys.executable, "-c", "import os; print(os.sched_getaffinity(0))")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == str({core})


def test_the_time_and_memory_of_grandchildren_count() -> None:
    inner = [sys.executable, "-c", GRANDCHILD + BUSY]
    outer = f"import subprocess; subprocess.run({inner!r}, check=True)"
    with subprocess.Popen(
        [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(descendants(process.pid)) == 2
        assert descendants(process.pid)[0] == process.pid
        # What process_time() counts goes by the same clock.
        assert cpu_us(process.pid) >= 200_000
        assert memory_mib(process.pid) >= 64
        process.communicate()


def test_threads_count() -> None:
    code = (
        "import sys, threading, time\n"
        "def spin():\n    while time.thread_time() < 0.1: pass\n    done.set(); sys.stdin.read()\n"
        "done = threading.Event(); threading.Thread(target=spin).start(); done.wait(); print(flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        main_thread = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e3
        assert cpu_us(process.pid) >= main_thread + 90_000
        process.communicate()


def test_a_process_that_is_gone_counts_nothing(tmp_path: Path) -> None:
    assert cpu_us(7, tmp_path) == 0
    assert memory_mib(7, tmp_path) == 0
    assert descendants(7, tmp_path) == [7]
