"""Judges of a machine: its kernel, limits, cgroups and clock. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ops.doctor.finding import Finding, fail, ok, warn

PROCESSES_OF_A_SLOT: Final = 256
"""As `SlotLimits.pids_limit`."""
PROCESSES_OF_THE_HOST: Final = 8192
"""Processes and threads that the machine's own programs may have."""
RECEIVE_BUFFER_BYTES: Final = 4 << 20
"""Above this default, four netlink sockets hold more than the 16 MiB that a slot may."""
CLOCK_WARN_S: Final = 2.0
"""A `Date` header counts whole seconds, and the answer takes some time."""
CLOCK_FAIL_S: Final = 60.0
NEEDED: Final = frozenset({"cpu", "memory", "pids"})
_SYSCTL_FILE: Final = "/etc/sysctl.d/60-general-compute.conf"


def _sysctl(values: Mapping[str, int]) -> str:
    """Return the command that sets sysctls, now and after the next start."""
    pairs = " ".join(f"{name}={value}" for name, value in values.items())
    return f"sysctl -w {pairs}, and write the same into {_SYSCTL_FILE}"


def version_of(release: str) -> tuple[int, int]:
    """Return a kernel's version, such as (6, 1) for `6.1.0-37-amd64`; (0, 0) if it cannot be read."""
    parts = release.split("-")[0].split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return 0, 0


def kernel(release: str) -> Finding:
    version = version_of(release)
    if version == (0, 0):
        return warn(f"{release!r} is not a version of Linux", "run the platform on Linux 5.14 or later")
    if version < (5, 14):
        return warn(
            f"Linux {release}: programs get no netlink socket, so they cannot list network interfaces",
            "install Linux 5.14 or later",
        )
    return ok(f"Linux {release}")


@dataclass(frozen=True)
class Watches:
    """fs.epoll.max_user_watches; `wanted` is None where it is high enough."""

    present: int
    wanted: int | None


def epoll_watches(facts: Watches) -> Finding:
    if facts.wanted is None:
        return ok(f"fs.epoll.max_user_watches is {facts.present}")
    return warn(
        f"fs.epoll.max_user_watches is {facts.present}: programs of one USER can take all watches; if it is root, no "
        "slot starts any more",
        _sysctl({"fs.epoll.max_user_watches": facts.wanted}),
    )


@dataclass(frozen=True)
class Processes:
    """Limits of processes and threads on the machine, and the most slots that it may run."""

    pid_max: int
    threads_max: int
    slots: int


def processes(facts: Processes) -> Finding:
    wanted = facts.slots * PROCESSES_OF_A_SLOT + PROCESSES_OF_THE_HOST
    low = {
        name: wanted
        for name, present in (("kernel.pid_max", facts.pid_max), ("kernel.threads-max", facts.threads_max))
        if present < wanted
    }
    if not low:
        return ok(
            f"kernel.pid_max is {facts.pid_max}: enough for as many slots as there may be: {facts.slots}"
        )
    return warn(
        f"kernel.pid_max is {facts.pid_max} and kernel.threads-max {facts.threads_max}: slots may have "
        f"{facts.slots * PROCESSES_OF_A_SLOT} processes, and the machine could then start no other",
        _sysctl(low),
    )


def huge_pages(reserved: Mapping[str, int]) -> Finding:
    """`reserved`: pages by the file that says so, in /proc/sys/vm and /sys/kernel/mm."""
    wrong = {file: pages for file, pages in reserved.items() if pages}
    if not wrong:
        return ok("no huge pages are reserved")
    first = next(iter(wrong))
    return warn(
        f"{first} is {wrong[first]}: any slot may map reserved huge pages, and no memory limit counts them",
        f"for f in {' '.join(wrong)}; do echo 0 > $f; done, and take them out of /etc/sysctl.d and the kernel's "
        "command line",
    )


def receive_buffers(rmem_default: int) -> Finding:
    if rmem_default <= RECEIVE_BUFFER_BYTES:
        return ok(f"net.core.rmem_default is {rmem_default}")
    return warn(
        f"net.core.rmem_default is {rmem_default}: the netlink sockets of a slot hold more than 16 MiB, which no "
        "limit counts",
        _sysctl({"net.core.rmem_default": 212_992}),
    )


@dataclass(frozen=True)
class Cgroups:
    """The cgroup trees of a machine: version 1 where any controller has a tree of its own."""

    version: int
    controllers: frozenset[str]
    kernel: str


def cgroups(facts: Cgroups) -> Finding:
    missing = sorted(NEEDED - facts.controllers)
    if missing:
        named = ", ".join(missing)
        boot = "boot with systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory"
        return fail(f"cgroup version {facts.version} lacks {named}: slots would have no such limit", boot)
    if facts.version == 2 and version_of(facts.kernel) < (6, 12):
        return warn(
            f"cgroup version 2 on Linux {facts.kernel}: the kernel cannot reset memory.peak, so `memory_peak_kib` of "
            "tasks is often null",
            "install Linux 6.12 or later; nothing else depends on it",
        )
    return ok(f"cgroup version {facts.version} with {', '.join(sorted(facts.controllers & NEEDED))}")


def clock(synchronised: bool) -> Finding:
    if synchronised:
        return ok("the kernel says that the clock is synchronised")
    return warn(
        "nobody sets this machine's clock: times of tasks and certificates depend on it",
        "apt-get install chrony && systemctl enable --now chrony",
    )


def clock_against(whose: str, ahead_s: float) -> Finding:
    """`ahead_s`: how far this machine's clock is ahead of the clock of `whose` machine."""
    apart = (
        f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} {whose}'s"
    )
    mend = "compare both with `chronyc tracking` or `timedatectl`, and mend the one that is wrong"
    if abs(ahead_s) >= CLOCK_FAIL_S:
        return fail(apart, mend)
    if abs(ahead_s) > CLOCK_WARN_S:
        return warn(apart, mend)
    return ok(f"agrees with {whose}'s within {CLOCK_WARN_S:g} s")
