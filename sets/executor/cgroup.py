"""A slot's cgroup: the CPU time that is billed, and whether the kernel killed for memory. Versions 1 and 2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


class CgroupError(Exception):
    """The slot's cgroup cannot be read."""


def _mounts() -> dict[str, str]:
    """Where the controllers `cpuacct` and `memory` (version 1) and the unified tree (`""`, version 2) are mounted."""
    found: dict[str, str] = {}
    for line in (PROC / "self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split(" ")
        if kind == "cgroup":
            for controller in {"cpuacct", "memory"} & set(options.split(",")):
                found.setdefault(controller, target)
        elif kind == "cgroup2":
            found.setdefault("", target)
    return found


class SlotCgroup:
    """Reads the accounts of the cgroup that holds process `pid` (as this process sees it).

    One descriptor stays open for the CPU account, because it is read for every task.
    """

    def __init__(self, pid: int) -> None:
        paths: dict[str, str] = {}
        try:
            for line in (PROC / str(pid) / "cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                for controller in controllers.split(","):
                    paths[controller] = path
            mounts = _mounts()
            self._v2 = "cpuacct" not in paths or "cpuacct" not in mounts
            if self._v2:
                folder = mounts[""] + paths[""]
                self._cpu_fd = os.open(folder + "/cpu.stat", os.O_RDONLY | os.O_CLOEXEC)
                self._events = folder + "/memory.events"
            else:
                self._cpu_fd = os.open(
                    mounts["cpuacct"] + paths["cpuacct"] + "/cpuacct.usage", os.O_RDONLY | os.O_CLOEXEC
                )
                self._events = mounts.get("memory", "") + paths.get("memory", "") + "/memory.oom_control"
        except (OSError, KeyError, ValueError) as error:
            raise CgroupError(f"the cgroup of process {pid} cannot be read: {error}") from error
        self._oom_kills = self._read_oom_kills()

    def cpu_us(self) -> int:
        """CPU time used by the slot since it began, microseconds. Raises `CgroupError` once the slot is gone."""
        try:
            text = os.pread(self._cpu_fd, 64, 0)
            # v1: nanoseconds; v2: "usage_usec 123\n…", always the first line.
            return int(text[11 : text.index(b"\n")]) if self._v2 else int(text) // 1000
        except (OSError, ValueError) as error:
            raise CgroupError(f"the slot's CPU account cannot be read: {error}") from error

    def out_of_memory_since(self) -> bool:
        """Whether the kernel killed a process of the slot for memory since the last call (or the start)."""
        before, self._oom_kills = self._oom_kills, self._read_oom_kills()
        return self._oom_kills > before

    def _read_oom_kills(self) -> int:
        try:
            for line in Path(self._events).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        except OSError:
            pass
        return 0

    def close(self) -> None:
        if self._cpu_fd >= 0:
            os.close(self._cpu_fd)
            self._cpu_fd = -1
