"""Lays out the folders that slots need on a node: the guest, sockets, devices, and the cover of Nomad's directories."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ops.setup.errors import OpsError
from scheduler.launchers.hardening import HOSTS_FILE
from scheduler.launchers.nomad.node_files import (
    BIN,
    DEVICES,
    FEATURES,
    HIDE,
    HOSTS,
    RUN,
    SECCOMP,
    guest_name,
    seccomp_name,
)
from scheduler.launchers.seccomp import profile_json
from sets.cpu import cpu_features
from sets.guest import GUEST_BINARY, unusable

DEVICE_FILES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_FLAG: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_FEATURES_HEAD: Final = """# The CPU features of this node, which slots may ask for. `python -m ops.nomad layout` writes
# this file, and only when they change, as with another kernel. Start the agent with it beside its other files, and
# again after a change.

"""
LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


def lay_out(folder: Path) -> list[str]:
    """Make or complete a node's folder; returns what was made. Needs root. Files of other builds stay.

    Raises `OpsError` with what is missing, and `OSError`.
    """
    if os.geteuid() != 0:
        raise OpsError(
            "laying out a node needs root: it makes device files and folders that nobody can enter"
        )
    if problem := unusable():
        raise OpsError(problem)
    made: list[str] = []
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    guest = GUEST_BINARY.read_bytes()
    profile = profile_json()
    _folder(folder / BIN, 0o755, made)
    _file(folder / BIN / guest_name(guest), guest, 0o755, made)
    _folder(folder / SECCOMP, 0o755, made)
    _file(folder / SECCOMP / seccomp_name(profile), profile.encode(), 0o644, made)
    # Slots of all sets see this folder. Without the right to read it, none can list the sockets of others.
    _folder(folder / RUN, 0o311, made)
    _file(folder / HOSTS, HOSTS_FILE.read_bytes(), 0o644, made)
    _hide(folder / HIDE, made)
    _devices(folder / DEVICES, made)
    _file(folder / FEATURES, features(cpu_features()).encode(), 0o644, made)
    return made


def features(flags: Iterable[str]) -> str:
    """Return the part of a client's configuration that tells the cluster the node's CPU features.

    The node itself writes it, so that nobody needs the right to change nodes, with which all of them could be drained.
    """
    keys = "".join(f'    gc_cpu_{flag} = "1"\n' for flag in sorted(flags) if _FLAG.fullmatch(flag))
    return f"{_FEATURES_HEAD}client {{\n  meta {{\n{keys}  }}\n}}\n"


def missing(folder: Path) -> str:
    """Return what a node's folder lacks for slots of this build, and the remedy; empty if it is complete."""
    wanted = (
        folder / BIN / guest_name(GUEST_BINARY.read_bytes()),
        folder / SECCOMP / seccomp_name(profile_json()),
        folder / RUN,
        folder / HIDE,
        folder / DEVICES / "null",
        folder / HOSTS,
        folder / FEATURES,
    )
    for path in wanted:
        if not path.exists():
            return f"{path} is missing; lay the node out with `python -m ops.nomad layout {folder}`"
    return ""


def _folder(path: Path, mode: int, made: list[str]) -> None:
    if not path.is_dir():
        path.mkdir()
        made.append(str(path))
    path.chmod(mode)


def _file(path: Path, content: bytes, mode: int, made: list[str]) -> None:
    """Write a file in one step: slots may start from it at any time."""
    if path.is_file() and path.read_bytes() == content:
        path.chmod(mode)
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.chmod(mode)
    unfinished.replace(path)
    made.append(str(path))


def _hide(path: Path, made: list[str]) -> None:
    """Make a folder that nobody can enter, with the three folders on which Nomad mounts its own."""
    if not path.is_dir():
        path.mkdir(mode=0o700)
        made.append(str(path))
    for name in ("alloc", "local", "secrets"):
        (path / name).mkdir(exist_ok=True)
    path.chmod(0)


def _devices(path: Path, made: list[str]) -> None:
    _folder(path, 0o755, made)
    # runc before 1.1.8 gives the tmpfs that is mounted there the mode of this folder.
    (path / "shm").mkdir(exist_ok=True)
    (path / "shm").chmod(0o1777)
    for name, (major, minor) in DEVICE_FILES.items():
        device = path / name
        if not device.exists():
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
            made.append(str(device))
        device.chmod(0o666)
    for name, target in LINKS.items():
        link = path / name
        if not link.is_symlink():
            link.symlink_to(target)
            made.append(str(link))
