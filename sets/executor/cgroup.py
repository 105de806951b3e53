"""A slot's cgroup: the CPU time that is billed, the memory that a task held, and whether the kernel killed for it.
Versions 1 and 2."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")
UNIFIED: Final = ""
"""Name of version 2's single tree, here and in /proc/PID/cgroup, instead of a controller's name."""
READ: Final = os.O_RDONLY | os.O_CLOEXEC
CONTROLLERS: Final = frozenset({"cpu", "cpuacct", "memory"})
SOCKET_BYTES: Final = 16 << 20
"""Buffers of all TCP and UDP sockets of a slot, with cgroup version 1.

Version 2 charges them to the slot's memory. Version 1 charges them to no cgroup, unless they have a limit of their own,
and runc ignores Docker's setting for it.
"""


LEAST_SHARES: Final = 2
"""The least `cpu.shares` that the kernel takes, of usually 1024; version 1."""
LEAST_WEIGHT: Final = 1
"""The least `cpu.weight` that the kernel takes, of usually 100; version 2."""


class CgroupError(Exception):
    """The slot's cgroup cannot be read."""


class MemoryUse(NamedTuple):
    """A task's use of its slot's memory.

    `oom_kills`: how many of its processes the kernel killed for memory. `peak_kib`: the most that the cgroup held, 0
    where the kernel cannot tell.
    """

    oom_kills: int
    peak_kib: int


class _Mount(NamedTuple):
    controllers: frozenset[str]
    root: str
    target: str


def _mounts(proc: Path) -> list[_Mount]:
    """The cgroup trees that are mounted here. `root` is the part of the tree that is mounted at `target`."""
    found = []
    for line in (proc / "self/mountinfo").read_text().splitlines():
        mount, _, file_system = line.partition(" - ")
        _, _, _, root, target, *_ = mount.split(" ")
        kind, _, options = file_system.split(" ")
        if kind == "cgroup":
            found.append(
                _Mount(CONTROLLERS.intersection(options.split(",")), _unescape(root), _unescape(target))
            )
        elif kind == "cgroup2":
            found.append(_Mount(frozenset({UNIFIED}), _unescape(root), _unescape(target)))
    return found


def _unescape(path: str) -> str:
    """mountinfo writes blanks as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _paths(proc: Path, pid: int) -> dict[str, str]:
    """The cgroup of process `pid` in each tree, by controller."""
    found = {}
    for line in (proc / str(pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _folder(mounts: list[_Mount], paths: dict[str, str], controller: str) -> str | None:
    """The folder of a process's cgroup, or None if that controller is not available in this way."""
    path = paths.get(controller)
    if path is None:
        return None
    for mount in mounts:
        # In a container only a part of the tree is mounted, and /.. leads out of one's own cgroup namespace.
        root = mount.root.rstrip("/")
        if controller in mount.controllers and (path == root or path.startswith(root + "/")):
            inside = path[len(root) :]
            if "/.." not in inside:
                return mount.target.rstrip("/") + inside.rstrip("/")
    return None


def _bound_sockets(folder: str) -> None:
    # A kernel without this account, or a set that may only read cgroups, leaves sockets as they are.
    with contextlib.suppress(OSError):
        limit = os.open(folder + "/memory.kmem.tcp.limit_in_bytes", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(limit, b"%d" % SOCKET_BYTES)
        finally:
            os.close(limit)


CPU_PERIOD_US: Final = 100_000
"""Period in microseconds in which a slot may use its share of a core: the kernel's usual one, as engines set it."""


def limit_cpu(pid: int, percent: int | None, proc: Path = PROC) -> None:
    """Limit the CPU of the cgroup that holds process `pid` to hundredths of a core.

    With `percent` None the cgroup must have a limit already. Raises `CgroupError` if it has none in the end.
    """
    try:
        mounts, paths = _mounts(proc), _paths(proc, pid)
        cpu, unified = _folder(mounts, paths, "cpu"), _folder(mounts, paths, UNIFIED)
        if cpu is not None:
            quota = Path(cpu, "cpu.cfs_quota_us")
            if percent is not None:
                Path(cpu, "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
                quota.write_text(str(percent * CPU_PERIOD_US // 100))
            limited = int(quota.read_text()) > 0
        elif unified is not None:
            quota = Path(unified, "cpu.max")
            if percent is not None:
                quota.write_text(f"{percent * CPU_PERIOD_US // 100} {CPU_PERIOD_US}")
            limited = not quota.read_text().startswith("max")
        else:
            raise CgroupError("it is not mounted here; run the set in the host's cgroup namespace")
    except (OSError, ValueError, CgroupError) as error:
        raise CgroupError(f"the CPU of process {pid} cannot be limited: {error}") from error
    if not limited:
        raise CgroupError(
            "its CPU has no limit: neither its job nor the set's launcher has named one; set cpu_reservation_percent "
            "of the registrar to 100"
        )


class SlotCgroup:
    """Reads the accounts of the cgroup that holds process `pid` (as this process sees it), and bounds its sockets.

    The accounts stay open, because they are read for every task. `proc` is where the proc file system is.
    """

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self._cpu_fd = self._memory_fd = self._peak_fd = -1
        self._weight = CpuWeight("", LEAST_SHARES)
        self._kills_at_begin = self._kills_at_end = 0
        self._peak_resets = True
        self._peak_at_begin = 0
        try:
            self._open(_mounts(proc), _paths(proc, pid))
        except (OSError, ValueError, CgroupError) as error:
            self.close()
            raise CgroupError(f"the cgroup of process {pid} cannot be read: {error}") from error

    def _open(self, mounts: list[_Mount], paths: dict[str, str]) -> None:
        # Hosts that have both versions bring a controller under either.
        unified = _folder(mounts, paths, UNIFIED)
        cpu = _folder(mounts, paths, "cpuacct")
        shares = _folder(mounts, paths, "cpu")
        if shares is not None:
            self._weight = CpuWeight(shares + "/cpu.shares", LEAST_SHARES)
        elif unified is not None:
            self._weight = CpuWeight(unified + "/cpu.weight", LEAST_WEIGHT)
        memory = _folder(mounts, paths, "memory")
        self._v2 = cpu is None
        if cpu is not None:
            self._cpu_fd = os.open(cpu + "/cpuacct.usage", READ)
        elif unified is not None:
            self._cpu_fd = os.open(unified + "/cpu.stat", READ)
        else:
            raise CgroupError("it is not mounted here; run the set in the host's cgroup namespace")
        # A host without the memory controller never kills for a slot's limit.
        with contextlib.suppress(FileNotFoundError):
            if memory is not None:
                self._memory_fd = os.open(memory + "/memory.oom_control", READ)
                self._peak_fd = _open_peak(memory + "/memory.max_usage_in_bytes")
            elif unified is not None:
                self._memory_fd = os.open(unified + "/memory.events", READ)
                self._peak_fd = _open_peak(unified + "/memory.peak")
        if memory is not None:
            _bound_sockets(memory)
        self.cpu_us()
        self._kills_at_begin = self._kills_at_end = self._oom_kills()

    def cpu_us(self) -> int:
        """CPU time used by the slot since it began, microseconds. Raises `CgroupError` once the slot is gone."""
        try:
            text = os.pread(self._cpu_fd, 64, 0)
            # v1: nanoseconds; v2: "usage_usec 123\n…", always the first line.
            return int(text[11 : text.index(b"\n")]) if self._v2 else int(text) // 1000
        except (OSError, ValueError) as error:
            raise CgroupError(f"the slot's CPU account cannot be read: {error}") from error

    def begin_task(self) -> None:
        """A task begins: its memory is counted from here on, and it gets its share of the CPU. Never raises."""
        self._weight.restore()
        self._kills_at_begin = self._oom_kills()
        if self._peak_fd < 0:
            return
        if self._peak_resets:
            try:
                os.pwrite(self._peak_fd, b"0", 0)
                return
            except OSError:
                # Version 2 before Linux 6.12, or a tree that is mounted read-only.
                self._peak_resets = False
        self._peak_at_begin = self._read_peak()

    def end_task(self, *, prestarted: bool) -> MemoryUse:
        """A task has ended: what it did. `prestarted`: its program was started after the last task's end. Never raises.

        Where the peak cannot be reset, it is the task's own only if it rose while the task ran.
        """
        kills = self._oom_kills()
        oom_kills = kills - (self._kills_at_end if prestarted else self._kills_at_begin)
        self._kills_at_end = kills
        peak = self._read_peak()
        if not self._peak_resets and peak <= self._peak_at_begin:
            peak = 0
        return MemoryUse(oom_kills, peak >> 10)

    def killed_between_tasks(self) -> bool:
        """Return True if the kernel killed for memory since the last task's end. The next task is not blamed for it."""
        before, self._kills_at_end = self._kills_at_end, self._oom_kills()
        return self._kills_at_end > before

    def yield_cpu(self) -> None:
        """Until the next task, the slot gets only CPU time that no other slot wants: a program that waits for its task
        loads behind those that run. Never raises."""
        self._weight.lower()

    def _oom_kills(self) -> int:
        if self._memory_fd < 0:
            return 0
        try:
            text = os.pread(self._memory_fd, 512, 0)
            at = text.index(b"oom_kill ") + 9
            return int(text[at : text.index(b"\n", at)])
        except (OSError, ValueError):
            return self._kills_at_end

    def _read_peak(self) -> int:
        """Bytes."""
        if self._peak_fd < 0:
            return 0
        try:
            return int(os.pread(self._peak_fd, 64, 0))
        except (OSError, ValueError):
            return 0

    def close(self) -> None:
        """Close the accounts; closing twice is fine."""
        for fd in (self._cpu_fd, self._memory_fd, self._peak_fd):
            if fd >= 0:
                os.close(fd)
        self._cpu_fd = self._memory_fd = self._peak_fd = -1
        self._weight.close()


def _open_peak(path: str) -> int:
    """The cgroup's peak, to be reset where that is possible; -1 on a kernel that has none (version 2 before 5.19)."""
    for flags in (os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(OSError):
            return os.open(path, flags | os.O_CLOEXEC)
    return -1


class CpuWeight:
    """How much of the CPU a cgroup gets while others want it: the kernel's file `path`, and the `least` that it takes.

    The file is opened on first use, as few slots need it. Where it cannot be written (a tree that is mounted
    read-only), the weight stays as it is.
    """

    def __init__(self, path: str, least: int) -> None:
        self._path = path
        self._least = b"%d" % least
        self._usual = b""
        self._fd = -1
        self._lowered = False

    def lower(self) -> None:
        """Set the weight to the least."""
        if self._lowered or not self._path:
            return
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                self._usual = os.pread(self._fd, 64, 0)
            os.pwrite(self._fd, self._least, 0)
        except OSError:
            self.close()
            self._path = ""
            return
        self._lowered = True

    def restore(self) -> None:
        """Set the weight to what it was."""
        if self._lowered:
            self._lowered = False
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, self._usual, 0)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._lowered = False


GUEST_ALLOWANCE_US: Final = 10_000
"""CPU time that a guest may use free of charge in a task, and again in the clean-up after it. Ordinary tasks need less
than a tenth of that. More is what the program made it do, such as removing 60,000 nested folders: it is billed."""


class CpuAccount:
    """Divides what a slot's cgroup used, in microseconds, between the programs that it ran and its guest.

    What the guest used beyond its allowance counts as the programs'; of a clean-up, as the slot's next program's.
    No microsecond is billed twice or dropped: where the kernel writes down the guest's share a moment later than the
    guest reports it, the difference is carried over to the slot's next task.
    """

    def __init__(self, used_us: int) -> None:
        # CPU time of the last task and of the clean-up after it, without the part that an earlier task reported.
        self.spent_us = 0
        self._reported_us = 0
        self._used_us = used_us
        self._carried_us = 0

    def bill(self, used_us: int, guest_cpu_us: int) -> int:
        """A program has ended: its share of what the slot used since the last call, by the cgroup's count."""
        unbilled_us = self._carried_us + used_us - self._used_us - min(guest_cpu_us, GUEST_ALLOWANCE_US)
        self._used_us = used_us
        self._carried_us = min(0, unbilled_us)
        billed_us = max(0, unbilled_us)
        self.spent_us, self._reported_us = max(0, billed_us - self._reported_us), 0
        return billed_us

    def unbilled(self, used_us: int) -> int:
        """Return the CPU time used since the last bill, including the guest's own."""
        return used_us - self._used_us

    def left_over(self, used_us: int, *, waited: bool = False) -> int:
        """Return the CPU time to add to the bill of the last task of a slot that ends now.

        That is what a program has used that `waited` for its task, and what the guest used beyond its allowance to
        clean up; without such a program, the idle guest has the allowance once more.
        """
        allowance_us = 0 if waited else GUEST_ALLOWANCE_US
        return max(0, self._carried_us + self.unbilled(used_us) - allowance_us)

    def guest_used(self, guest_cpu_us: int) -> None:
        """The guest used this between tasks, to clean up. No task is billed for it, up to the guest's allowance."""
        self._carried_us -= min(guest_cpu_us, GUEST_ALLOWANCE_US)
        self._reported_us = max(0, guest_cpu_us - GUEST_ALLOWANCE_US)
        self.spent_us += self._reported_us
