"""Processes found again by pid file, and never mistaken for a stranger's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.setup import processes

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def start(mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*SLEEPER, mark])


def test_a_pid_file_counts_only_with_the_right_command_line(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with start("the-right-one") as child:
        try:
            pid_file.write_text(f"{child.pid}\n")
            assert processes.wait_until(lambda: bool(processes.running(pid_file, "the-right-one")), 10)
            assert processes.running(pid_file, "the-right-one") == child.pid
            assert processes.running(pid_file, "another") == 0
        finally:
            child.kill()


@pytest.mark.parametrize("content", ["", "no number", "-1", "0", "99999999"])
def test_a_broken_pid_file_is_nobody(tmp_path: Path, content: str) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(content)
    assert processes.running(pid_file, "") == 0


def test_a_missing_pid_file_is_nobody(tmp_path: Path) -> None:
    assert processes.running(tmp_path / "none", "") == 0


def test_a_zombie_does_not_live() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not processes.alive(child.pid, "")


def test_stop_spares_a_process_with_another_command_line() -> None:
    with start("a-stranger") as child:
        try:
            assert processes.wait_until(lambda: processes.alive(child.pid, "a-stranger"), 10)
            processes.stop(child.pid, "ours", grace_s=5)
            assert child.poll() is None
        finally:
            child.kill()


def test_stop_kills_what_ignores_sigterm() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN, "stubborn-one"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        processes.stop(child.pid, "stubborn-one", grace_s=0.1)
        assert not processes.alive(child.pid, "stubborn-one")


def test_marked_leaves_out_the_one_that_asks() -> None:
    ours = processes.command_line(os.getpid())
    assert os.getpid() not in processes.marked(ours)
    assert os.getppid() not in processes.marked("")


def test_start_detached_survives_in_a_session_of_its_own_and_logs(tmp_path: Path) -> None:
    log = tmp_path / "log/of-it"
    script = "import os; print('session', os.getsid(0) == os.getpid(), os.environ['WORD'], flush=True)"
    environment = {"WORD": "passed-on"}
    pid = processes.start_detached([sys.executable, "-c", script], log, environment, tmp_path)
    assert processes.wait_until(lambda: "session True passed-on" in processes.tail(log), 10)
    os.waitpid(pid, 0)


def test_tail_gives_the_last_lines_and_never_raises(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert processes.tail(log, 2) == "line 98\nline 99"
    assert processes.tail(tmp_path / "none") == "(no log)"
