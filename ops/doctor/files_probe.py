"""Looks at files and folders. Each function may raise `OSError` or `CannotTell`; none returns a secret."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from ops.certificates.dates import validity
from ops.doctor.files import Dates, Entry, Mode, Room
from ops.doctor.finding import CannotTell
from ops.nomad.node import DEVICE_FILES, features
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


def mode(path: Path) -> Mode:
    try:
        found = path.stat()
    except FileNotFoundError:
        return Mode(str(path), None)
    return Mode(str(path), stat.S_IMODE(found.st_mode), stat.S_ISREG(found.st_mode) and not found.st_size)


def room(folder: Path, wanted_mib: int) -> Room:
    """Return the room in a folder; of one that does not exist yet, in the nearest one above it."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    found = os.statvfs(existing)
    return Room(str(folder), found.f_bavail * found.f_frsize >> 20, found.f_favail, found.f_files, wanted_mib)


def dates(path: Path) -> Dates:
    """Return the dates of the first certificate in a PEM file."""
    try:
        not_before, not_after = validity(path.read_bytes())
    except ValueError as error:
        raise CannotTell(f"{path} holds no certificate: {error}") from error
    return Dates(str(path), not_before, not_after, time.time())


def node_entries(folder: Path) -> list[Entry]:
    """Return the files that slots of this build need in a node's folder."""
    if problem := unusable():
        raise CannotTell(problem)
    if os.geteuid() != 0:
        raise CannotTell("only root can look into a node's folder; run the doctor as root")
    guest = GUEST_BINARY.read_bytes()
    profile = profile_json().encode()
    contents = {
        folder / BIN / guest_name(guest): (0o755, guest),
        folder / SECCOMP / seccomp_name(profile_json()): (0o644, profile),
        folder / HOSTS: (0o644, HOSTS_FILE.read_bytes()),
        folder / FEATURES: (0o644, features(cpu_features()).encode()),
    }
    folders = {folder / RUN: 0o311, folder / HIDE: 0, folder / DEVICES / "shm": 0o1777}
    return [
        *(_entry(path, wanted, content) for path, (wanted, content) in contents.items()),
        *(_entry(path, wanted) for path, wanted in folders.items()),
        *(_device(folder / DEVICES / name, numbers) for name, numbers in DEVICE_FILES.items()),
    ]


def _entry(path: Path, wanted: int, content: bytes | None = None) -> Entry:
    found = mode(path).mode
    same = content is None or found is None or path.read_bytes() == content
    return Entry(str(path), wanted, found, same)


def _device(path: Path, numbers: tuple[int, int]) -> Entry:
    try:
        found = path.stat()
    except FileNotFoundError:
        return Entry(str(path), 0o666, None)
    same = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(*numbers)
    return Entry(str(path), 0o666, stat.S_IMODE(found.st_mode), same)
