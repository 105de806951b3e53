"""What the kernel tells of processes: CPU time, memory; and which core each part of the bench gets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Cores:
    """The proxy has a core to itself; upstream and load share the other, or have one each where there are three."""

    proxy: int
    upstream: int
    load: int

    @classmethod
    def of(cls, available: Iterable[int]) -> Self:
        """Raises ValueError for fewer than two cores: a proxy would compete with its own load."""
        cores = sorted(available)
        if len(cores) < 2:
            raise ValueError("two cores are needed: one for the proxy, one for the load and the upstream")
        return cls(cores[0], cores[1], cores[2] if len(cores) > 2 else cores[1])


def pinned(core: int, *command: str) -> list[str]:
    """The command on this core alone."""
    return ["taskset", "--cpu-list", str(core), *command]


def descendants(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """The process and all below it, the parent first; without those that end meanwhile."""
    found = [pid]
    for each in found:
        try:
            for task in (proc / str(each) / "task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def cpu_us(pid: int, proc: Path = Path("/proc")) -> float:
    """CPU time so far, user and system, of the process, its threads and all below it: by the scheduler's clock, in
    nanoseconds, where `stat` counts in ticks. What ended before is not in it."""
    total_ns = 0
    for each in descendants(pid, proc):
        try:
            for task in (proc / str(each) / "task").iterdir():
                total_ns += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return total_ns / 1e3


def memory_mib(pid: int, proc: Path = Path("/proc")) -> float:
    """Resident memory of the largest process of these."""
    largest = 0
    for each in descendants(pid, proc):
        try:
            lines = (proc / str(each) / "status").read_text().splitlines()
        except OSError:
            continue
        largest = max([largest, *(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))])
    return largest / 1024


def available_cores() -> set[int]:
    return os.sched_getaffinity(0)
