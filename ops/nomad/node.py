"""Lays out the folders that slots need on a node: the guest, sockets, devices, and the cover of Nomad's directories."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Item:
    """A part of a node's folder: a file with `content`, a character device, a symbolic link, or else a folder.

    `mode` has the permission bits; a link has none.
    """

    path: Path
    mode: int
    content: bytes | None = None
    device: tuple[int, int] | None = None
    """Major and minor number."""
    target: str | None = None


def layout(folder: Path) -> list[Item]:
    """Return what slots of this build need in a node's folder, each item after the folder that holds it.

    Raises `OpsError` where the guest of this build cannot be used.
    """
    if problem := unusable():
        raise OpsError(problem)
    guest = GUEST_BINARY.read_bytes()
    profile = profile_json()
    bin_, seccomp, hide, devices = (folder / name for name in (BIN, SECCOMP, HIDE, DEVICES))
    return [
        Item(bin_, 0o755),
        Item(bin_ / guest_name(guest), 0o755, guest),
        Item(seccomp, 0o755),
        Item(seccomp / seccomp_name(profile), 0o644, profile.encode()),
        # Slots of all sets see this folder. Without the right to read it, none can list the sockets of others.
        Item(folder / RUN, 0o311),
        Item(folder / HOSTS, 0o644, HOSTS_FILE.read_bytes()),
        # Nobody can enter this one; Nomad mounts its own folders on the three in it.
        Item(hide, 0),
        *(Item(hide / name, 0o755) for name in ("alloc", "local", "secrets")),
        Item(devices, 0o755),
        # runc before 1.1.8 gives the tmpfs that is mounted there the mode of this folder.
        Item(devices / "shm", 0o1777),
        *(Item(devices / name, 0o666, device=numbers) for name, numbers in DEVICE_FILES.items()),
        *(Item(devices / name, 0, target=target) for name, target in LINKS.items()),
        Item(folder / FEATURES, 0o644, features(cpu_features()).encode()),
    ]


def lay_out(folder: Path) -> list[str]:
    """Make or complete a node's folder; returns what was made. Needs root. Files of other builds stay.

    Raises `OpsError` with what is missing, and `OSError`.
    """
    if os.geteuid() != 0:
        raise OpsError(
            "laying out a node needs root: it makes device files and folders that nobody can enter"
        )
    items = layout(folder)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return [str(item.path) for item in items if _make(item)]


def features(flags: Iterable[str]) -> str:
    """Return the part of a client's configuration that tells the cluster the node's CPU features.

    The node itself writes it, so that nobody needs the right to change nodes, with which all of them could be drained.
    """
    keys = "".join(f'    gc_cpu_{flag} = "1"\n' for flag in sorted(flags) if _FLAG.fullmatch(flag))
    return f"{_FEATURES_HEAD}client {{\n  meta {{\n{keys}  }}\n}}\n"


def _make(item: Item) -> bool:
    """Make an item, or give the one that is there its mode; return True if it was not there."""
    path = item.path
    made = True
    if item.target is not None:
        if path.is_symlink():
            return False
        path.symlink_to(item.target)
        return True
    if item.content is not None:
        if path.is_file() and path.read_bytes() == item.content:
            made = False
        else:
            _write(path, item.content, item.mode)
    elif item.device is not None:
        if path.exists():
            made = False
        else:
            os.mknod(path, item.mode | stat.S_IFCHR, os.makedev(*item.device))
    elif path.is_dir():
        made = False
    else:
        path.mkdir(mode=item.mode)
    path.chmod(item.mode)
    return made


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step: slots may start from it at any time."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.chmod(mode)
    unfinished.replace(path)
