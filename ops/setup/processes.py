"""Finds processes that an earlier run started: by pid file, verified by their command line.

A pid file alone proves nothing: after a crash or a reboot its number may belong to any process. So every function here
also takes a mark: a string that the command line of the right process contains (a path of this tree).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

POLL_S: Final = 0.05


def command_line(pid: int) -> str:
    """Return the arguments of a living process, joined by spaces; empty for a zombie, a kernel thread or none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def alive(pid: int, mark: str) -> bool:
    """Return True if this pid is a living process (not a zombie) whose command line contains the mark."""
    words = command_line(pid) if pid > 0 else ""
    return bool(words) and mark in words


def read_pid(pid_file: Path) -> int:
    """Return the number in a pid file; 0 if the file is missing or has no number."""
    try:
        return int(pid_file.read_text().strip())
    except (OSError, ValueError):
        return 0


def running(pid_file: Path, mark: str) -> int:
    """Return the pid in the file if that process lives and is ours, else 0."""
    pid = read_pid(pid_file)
    return pid if alive(pid, mark) else 0


def marked(mark: str) -> list[int]:
    """Return every living process whose command line contains the mark, except ourselves and our parents."""
    ancestors, pid = set(), os.getpid()
    while pid > 0:
        ancestors.add(pid)
        pid = _parent(pid)
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sorted(pid for pid in numbers if pid not in ancestors and alive(pid, mark))


def start_detached(command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path) -> int:
    """Start a process in its own session that outlives us, with output appended to the log; return its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
    # The process is meant to be orphaned. Without this, Popen's destructor warns.
    child.returncode = 0
    return child.pid


def has_ended(child: int) -> bool:
    """Return True if a process that this run started has ended; False for others, whose end we cannot see."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def exists(pid: int) -> bool:
    """Return True if any process has this pid, including a zombie."""
    return Path(f"/proc/{pid}").exists()


def stop(pid: int, mark: str, grace_s: float) -> None:
    """Send SIGTERM, wait up to `grace_s` seconds, then send SIGKILL; return when the process is gone."""
    if not _signal(pid, mark, signal.SIGTERM):
        return
    if not wait_until(lambda: not alive(pid, mark), grace_s):
        _signal(pid, mark, signal.SIGKILL)
        wait_until(lambda: not alive(pid, mark), 10)
    _reap(pid)


def kill_children(parent: int) -> None:
    """Send SIGKILL to the children of a process, but not to its grandchildren."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll a condition until it holds or the time is over; return True if it held."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def _signal(pid: int, mark: str, number: signal.Signals) -> bool:
    # A pidfd pins the process: its pid cannot be reused between the check of its command line and the signal.
    try:
        handle = os.pidfd_open(pid)
    except (OSError, ValueError):
        return False
    try:
        if not alive(pid, mark):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def _parent(pid: int) -> int:
    try:
        # The name in parentheses may contain any character, so count fields after its end.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _reap(pid: int) -> None:
    """Reap the zombie if we are still the parent (started and stopped by one run).

    A process loses its command line shortly before its parent can wait for it, so this may need several attempts.
    """

    def gone() -> bool:
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return True

    wait_until(gone, 5)
