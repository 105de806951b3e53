"""Looks at files and folders. Each function may raise `OSError` or `CannotTell`; none returns a secret."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from ops.certificates.dates import validity
from ops.doctor.files import Dates, Entry, Mode, Room
from ops.doctor.finding import CannotTell
from ops.nomad.node import Item, layout
from ops.setup.errors import OpsError


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
    """Return what slots of this build need in a node's folder, and what is there."""
    if os.geteuid() != 0:
        raise CannotTell("only root can look into a node's folder; run the doctor as root")
    try:
        return [_entry(item) for item in layout(folder)]
    except OpsError as error:
        raise CannotTell(str(error)) from error


def _entry(item: Item) -> Entry:
    try:
        found = item.path.lstat()
    except FileNotFoundError:
        return Entry(str(item.path), item.mode, None)
    if item.target is not None:
        # The mode of a link means nothing.
        same = stat.S_ISLNK(found.st_mode) and os.readlink(item.path) == item.target
        return Entry(str(item.path), item.mode, item.mode, same)
    if item.content is not None:
        same = stat.S_ISREG(found.st_mode) and item.path.read_bytes() == item.content
    elif item.device is not None:
        same = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(*item.device)
    else:
        same = stat.S_ISDIR(found.st_mode)
    return Entry(str(item.path), item.mode, stat.S_IMODE(found.st_mode), same)
