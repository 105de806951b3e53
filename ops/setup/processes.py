"""Processes that we started and no longer hold: found again by pid file, told from a stranger by command line.

A pid file alone proves nothing: after a crash or a reboot its number may be anybody's. So every function here takes,
beside the pid, a mark: a string that the command line of the right process contains (a path of this tree).
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
    """The arguments of a living process, joined by spaces; empty for none, for a zombie and for a kernel thread."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def alive(pid: int, mark: str) -> bool:
    """Whether this pid is a living process (no zombie) whose command line contains the mark."""
    words = command_line(pid) if pid > 0 else ""
    return bool(words) and mark in words


def read_pid(pid_file: Path) -> int:
    """The number in a pid file; 0 where there is no such file or no number in it."""
    try:
        return int(pid_file.read_text().strip())
    except (OSError, ValueError):
        return 0


def running(pid_file: Path, mark: str) -> int:
    """The pid in the file if that process lives and is ours, else 0."""
    pid = read_pid(pid_file)
    return pid if alive(pid, mark) else 0


def marked(mark: str) -> list[int]:
    """Every living process whose command line contains the mark, ourselves and our parents left out."""
    ancestors, pid = set(), os.getpid()
    while pid > 0:
        ancestors.add(pid)
        pid = _parent(pid)
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sorted(pid for pid in numbers if pid not in ancestors and alive(pid, mark))


def start_detached(command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path) -> int:
    """Starts a process in a session of its own that outlives us, its output appended to the log; gives its pid."""
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
    # Nobody waits for it: it is meant to be orphaned. Without this, Popen's destructor warns.
    child.returncode = 0
    return child.pid


def has_ended(child: int) -> bool:
    """Whether a process that this run started is over; for others, which we are not told about, False."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def exists(pid: int) -> bool:
    """Whether any process has this pid, a zombie included."""
    return Path(f"/proc/{pid}").exists()


def stop(pid: int, mark: str, grace_s: float) -> None:
    """SIGTERM, up to `grace_s` seconds of patience, then SIGKILL; returns when the process is gone."""
    if not _signal(pid, mark, signal.SIGTERM):
        return
    if not wait_until(lambda: not alive(pid, mark), grace_s):
        _signal(pid, mark, signal.SIGKILL)
        wait_until(lambda: not alive(pid, mark), 10)
    _reap(pid)


def kill_children(parent: int) -> None:
    """SIGKILL for the children of a process; those of its children that they leave are not touched."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Polls a condition until it holds or the time is over; says whether it held."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for a message about what failed."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def _signal(pid: int, mark: str, number: signal.Signals) -> bool:
    # A pidfd pins the process, so that between the look at its command line and the signal the pid can't change hands.
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
        # The name in parentheses may contain anything, so count from its end.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _reap(pid: int) -> None:
    """Where we are still the parent (started and stopped by one run), take the zombie away too.

    A process loses its command line a moment before its parent can wait for it, so this may have to try again.
    """

    def gone() -> bool:
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return True

    wait_until(gone, 5)
