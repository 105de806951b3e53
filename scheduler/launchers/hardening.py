"""The walls of a slot as data, for every launcher to render in its engine's words. Pure.

A launcher that cannot render a member must not start slots, or must have the executor build that wall itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.images.user import Owner
from scheduler.launchers.doorway import SOCKET_FILE
from scheduler.task import Resources

GUEST: Final = "/gc/guest"
"""Where the guest's binary is mounted, read-only."""
RUN_DIRECTORY: Final = "/gc/run"
"""Where the folder with the executor's socket is mounted, read-only."""
HOSTS: Final = "/etc/hosts"
"""Where a file with the name `localhost` is mounted, read-only: engines write none for a slot without a network."""
HOSTS_FILE: Final = Path(__file__).with_name("hosts")
"""That file, as the platform ships it."""
HOSTNAME: Final = "slot"

OOM_SCORE_ADJ: Final = 200
"""When the host runs out of memory, the kernel kills a slot before the set's own process."""

DESCRIPTORS: Final = "nofile"
"""The ulimit that the guest sets for the program; its own is the most that the engine may give."""
ULIMITS: Final = {
    DESCRIPTORS: 4096,
    "core": 0,
    "memlock": 64 * 1024,
    # POSIX queues could not be cleaned between tasks: none can be made.
    "msgqueue": 0,
    # Counted by the kernel per host uid, so one slot could use up another's.
    "sigpending": 1024,
}
SYSCTLS: Final = {
    # A connection that a task closed keeps its port for a minute: the next task would find the port taken.
    "net.ipv4.tcp_max_tw_buckets": "0",
    # What TCP measured for one task must not shape the next one's connections.
    "net.ipv4.tcp_no_metrics_save": "1",
}
"""Sysctls of the slot's own network namespace."""
PASSED_ON: Final = ("PATH", "HOSTNAME", "HOME")
"""Variables that engines give each program; the guest passes them on beside the image's own."""
_SHM: Final = "/dev/shm"


class SlotLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a slot in addition to its tasks' resources. Sizes are in MiB.

    `tmp_mib` bounds /tmp, `shm_mib` /dev/shm, `writable_mib` each VOLUME and each place of the label
    `org.general-compute.writable`; `inodes` bounds the files in each. Files there count towards the slot's memory too.
    `volume_content_mib` bounds what an image may bring along in a VOLUME: it is copied, once for all slots of the
    image. `home_content_kib` bounds what an image may have in its HOME so that programs can write there: each slot has
    a copy. `pids_limit` bounds processes and threads. `ulimits` is laid over our own (soft and hard alike, names as
    Docker has them); its `nofile` is the program's, and the engine must allow containers at least that.
    """

    tmp_mib: int = 512
    shm_mib: int = 64
    writable_mib: int = 512
    inodes: int = 65_536
    volume_content_mib: int = 256
    home_content_kib: int = 1024
    pids_limit: int = 256
    ulimits: dict[str, int] = msgspec.field(default_factory=dict)


class Tmpfs(msgspec.Struct, frozen=True, kw_only=True):
    """A folder in memory. No set-uid programs work there, and it keeps no times of access."""

    path: str
    size_kib: int
    inodes: int
    mode: int
    owner: Owner = Owner()
    writable: bool = True
    programs: bool = True
    """True if programs there can be executed."""
    devices: bool = False
    """True if device files there work."""


class Hardening(msgspec.Struct, frozen=True, kw_only=True):
    """One slot's walls. `init` is the slot's whole command line; the image's USER and WORKDIR stay as they are.

    `memory_mib` is all that it has: no swap. `private` names the namespaces of its own besides those that every
    container has. `seccomp` is a profile's JSON; None: the engine's own profile.
    """

    init: tuple[str, ...]
    tmpfs: tuple[Tmpfs, ...]
    resources: Resources
    pids: int
    ulimits: dict[str, int]
    seccomp: str | None = None
    sysctls: dict[str, str] = msgspec.field(default_factory=lambda: dict(SYSCTLS))
    hostname: str = HOSTNAME
    oom_score_adj: int = OOM_SCORE_ADJ
    capabilities: tuple[str, ...] = ()
    new_privileges: bool = False
    network: bool = False
    read_only_root: bool = True
    private: tuple[str, ...] = ("ipc", "cgroup")


def harden(
    image: Image, resources: Resources, limits: SlotLimits, layout: Layout, seccomp: str | None = None
) -> Hardening:
    """The walls of a slot of this image."""
    ulimits = {**ULIMITS, **limits.ulimits}
    names = (entry.partition("=")[0] for entry in image.env)
    socket = f"{RUN_DIRECTORY}/{SOCKET_FILE}"
    return Hardening(
        init=(GUEST, socket, str(ulimits.pop(DESCRIPTORS)), *layout.places, "--", *PASSED_ON, *names),
        tmpfs=(*(_place(path, limits, layout.owner) for path in layout.places), _DEV),
        resources=resources,
        pids=limits.pids_limit,
        ulimits=ulimits,
        seccomp=seccomp,
    )


# An engine's own /dev can be written to by root, and nobody cleans it.
_DEV: Final = Tmpfs(
    path="/dev", size_kib=64, inodes=64, mode=0o755, writable=False, programs=False, devices=True
)


def _place(path: str, limits: SlotLimits, owner: Owner) -> Tmpfs:
    size_mib = {"/tmp": limits.tmp_mib, _SHM: limits.shm_mib}.get(path, limits.writable_mib)
    # Where the image has a directory already (an engine makes one for a WORKDIR), runc before 1.1.8 gives the tmpfs
    # that one's mode in place of ours, and 755 would keep all but its owner from writing. Therefore its owner is the
    # USER. /dev/shm is the exception: it lies in a /dev of ours, so the image never has one.
    return Tmpfs(
        path=path,
        size_kib=size_mib << 10,
        inodes=limits.inodes,
        mode=0o1777,
        owner=Owner() if path == _SHM else owner,
    )
