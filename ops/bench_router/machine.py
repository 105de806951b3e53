"""CPU time and memory of processes, and the core that each part of the bench gets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Cores:
    """The cores of the bench: one for the proxy; upstream and load share one, or have one each if there are three."""

    proxy: int
    upstream: int
    load: int

    @classmethod
    def of(cls, available: Iterable[int]) -> Self:
        """Choose the cores. Raises ValueError for fewer than two: the proxy would compete with its load."""
        cores = sorted(available)
        if len(cores) < 2:
            raise ValueError("two cores are needed: one for the proxy, one for the load and the upstream")
        return cls(cores[0], cores[1], cores[2] if len(cores) > 2 else cores[1])


def pinned(core: int, *command: str) -> list[str]:
    """Return the command, pinned to this core."""
    return ["taskset", "--cpu-list", str(core), *command]


def descendants(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Return the process and its descendants, parents first, without those that end meanwhile."""
    found = [pid]
    for each in found:
        try:
            for task in (proc / str(each) / "task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def cpu_us(pid: int, proc: Path = Path("/proc")) -> float:
    """Return the CPU time so far, user and system, of the process, its threads and its descendants, by the scheduler's
    clock in nanoseconds (`stat` counts in ticks). Processes that have ended are not included."""
    total_ns = 0
    for each in descendants(pid, proc):
        try:
            for task in (proc / str(each) / "task").iterdir():
                total_ns += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return total_ns / 1e3


def memory_mib(pid: int, proc: Path = Path("/proc")) -> float:
    """Return the resident memory of the largest of these processes."""
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
