"""Gathers the facts of this machine. Each function may raise `OSError` or `CannotTell`."""

from __future__ import annotations

import ctypes
import email.utils
import os
import sys
import time
from pathlib import Path
from typing import Final

from ops.doctor.finding import CannotTell
from ops.doctor.machine import Cgroups, Processes, Watches
from scheduler.launchers.docker_separation import epoll_watches_wanted

PROC: Final = Path("/proc")
HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages")

_TIMEX_BYTES: Final = 512
"""More than `struct timex` has on any machine."""
_TIMEX_STATUS_AT: Final = 40
"""Offset of `status` in `struct timex` of 64-bit Linux: `modes` and four longs come first."""
_UNSYNCHRONISED: Final = 0x40
"""STA_UNSYNC."""


def number(path: Path) -> int:
    """Return the number in a file of /proc or /sys."""
    text = path.read_text()
    try:
        return int(text)
    except ValueError as error:
        raise CannotTell(f"{path} holds no number") from error


def release() -> str:
    return os.uname().release


def watches(proc: Path = PROC) -> Watches:
    return Watches(number(proc / "sys/fs/epoll/max_user_watches"), epoll_watches_wanted(proc))


def processes(slots: int, proc: Path = PROC) -> Processes:
    kernel = proc / "sys/kernel"
    return Processes(number(kernel / "pid_max"), number(kernel / "threads-max"), slots)


def huge_pages(proc: Path = PROC, sizes: Path = HUGE_PAGES) -> dict[str, int]:
    files = [proc / "sys/vm/nr_hugepages", proc / "sys/vm/nr_overcommit_hugepages"]
    files += sorted(sizes.glob("hugepages-*/nr*_hugepages"))
    found = {str(file): number(file) for file in files if file.exists() and not file.match("*mempolicy*")}
    if not found:
        raise CannotTell("this kernel does not say")
    return found


def receive_buffer(proc: Path = PROC) -> int:
    return number(proc / "sys/net/core/rmem_default")


def cgroups(proc: Path = PROC) -> Cgroups:
    own: set[str] = set()
    unified: set[str] = set()
    for line in (proc / "self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split(" ")
        if kind == "cgroup":
            own |= set(options.split(","))
        elif kind == "cgroup2":
            unified |= set(Path(target, "cgroup.controllers").read_text().split())
    if not own and not unified:
        raise CannotTell("no cgroup tree is mounted here; run the doctor in the host's mount namespace")
    if own & {"cpu", "memory", "pids"}:
        return Cgroups(1, frozenset(own | unified), release())
    return Cgroups(2, frozenset(unified), release())


def synchronised() -> bool:
    """Return whether the kernel holds its clock for synchronised (adjtimex)."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(buffer) < 0:
        raise CannotTell(f"adjtimex: {os.strerror(ctypes.get_errno())}")
    status = int.from_bytes(buffer.raw[_TIMEX_STATUS_AT:][:4], sys.byteorder)
    return not status & _UNSYNCHRONISED


def seconds_ahead(date: str | None) -> float:
    """Return how far this clock is ahead of a `Date` header that has just come."""
    if date is None:
        raise CannotTell("the answer has no Date header")
    try:
        return time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError as error:
        raise CannotTell(f"{date!r} is no date") from error
