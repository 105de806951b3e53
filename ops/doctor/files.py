"""Judges of files and folders: modes of secrets, room on disks, dates of certificates. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ops.doctor.finding import Finding, fail, ok, warn
from sets.executor.link.expiry import WARN_S

GROUP_AND_OTHERS: Final = 0o077
WRITABLE_BY_OTHERS: Final = 0o022
INODES_WARN: Final = 0.05
INODES_FAIL: Final = 0.005
"""Shares of a file system's inodes that should be free."""
ROOMY: Final = 8
"""The disk is getting full below this many times the room that a set needs to accept tasks."""


@dataclass(frozen=True)
class Mode:
    """A file or folder. `mode` has the permission bits alone; None: it does not exist."""

    path: str
    mode: int | None
    empty: bool = False


def secret(file: Mode) -> Finding:
    """Judge a file that holds a token, password or key."""
    if file.mode is None:
        return fail(f"{file.path} is missing", f"write it as its user, with `umask 077`: {file.path}")
    if file.mode & GROUP_AND_OTHERS:
        return fail(
            f"{file.path} has mode {file.mode:04o}: others can read the secret in it",
            f"chmod 600 {file.path}; replace the secret if others use this machine",
        )
    if file.empty:
        return fail(f"{file.path} is empty", f"write the secret into {file.path}")
    return ok(f"{file.path} has mode {file.mode:04o}")


def configuration(file: Mode) -> Finding:
    """Judge a file of settings: who may write it rules the part."""
    if file.mode is not None and file.mode & WRITABLE_BY_OTHERS:
        return fail(f"{file.path} has mode {file.mode:04o}: others can change it", f"chmod go-w {file.path}")
    return ok(f"{file.path} can be changed by its owner alone")


def private_folder(folder: Mode) -> Finding:
    """Judge a folder that only the part itself should enter."""
    if folder.mode is None:
        return ok(f"{folder.path} does not exist yet; the part makes it at its start")
    if folder.mode & GROUP_AND_OTHERS:
        return warn(
            f"{folder.path} has mode {folder.mode:04o}: others can look at inputs and results",
            f"chmod 700 {folder.path}",
        )
    return ok(f"{folder.path} has mode {folder.mode:04o}")


@dataclass(frozen=True)
class Entry:
    """A file of a node's folder, with the mode that it must have. `found` is None where it is missing."""

    path: str
    wanted: int
    found: int | None
    same: bool = True
    """Its content is that of this build."""


def node_folder(entries: Sequence[Entry], folder: str) -> Iterator[Finding]:
    """Judge what `python -m ops.nomad layout` makes."""
    mend = f"python -m ops.nomad layout {folder}"
    for entry in entries:
        if entry.found is None:
            yield fail(f"{entry.path} is missing: slots of this build do not start on this node", mend)
        elif not entry.same:
            yield fail(
                f"{entry.path} is not what this build has: somebody changed it", f"rm {entry.path}; {mend}"
            )
        elif entry.found != entry.wanted:
            yield fail(f"{entry.path} has mode {entry.found:04o} instead of {entry.wanted:04o}", mend)
    if all(entry.found == entry.wanted and entry.same for entry in entries):
        yield ok(f"{folder} has the guest, the seccomp profile and the devices of this build")


@dataclass(frozen=True)
class Room:
    """Room on a file system. `inodes` is 0 where it counts none."""

    path: str
    free_mib: int
    inodes_free: int
    inodes: int
    wanted_mib: int


def disk(room: Room) -> Finding:
    """Judge a disk; the words name the folder, as a machine has several file systems."""
    said = f"{room.path}: {room.free_mib} MiB are free"
    mend = f"df -h {room.path}; remove what is not needed (ops/runbook.md, `full disk`)"
    if room.free_mib < room.wanted_mib:
        return fail(f"{said}, and the set takes tasks only above {room.wanted_mib} MiB", mend)
    if room.inodes and room.inodes_free < room.inodes * INODES_FAIL:
        return fail(
            f"{room.path}: {room.inodes_free} of {room.inodes} inodes are free", mend.replace("-h", "-i")
        )
    if room.free_mib < room.wanted_mib * ROOMY:
        return warn(said, mend)
    if room.inodes and room.inodes_free < room.inodes * INODES_WARN:
        return warn(
            f"{room.path}: {room.inodes_free} of {room.inodes} inodes are free", mend.replace("-h", "-i")
        )
    return ok(said)


@dataclass(frozen=True)
class Dates:
    """A certificate's dates, in seconds since 1970, and `now`."""

    path: str
    not_before: float
    not_after: float
    now: float


def certificate(dates: Dates, renew: str) -> Finding:
    """`renew` is the command that renews it."""
    left_s = dates.not_after - dates.now
    if left_s <= 0:
        return fail(f"{dates.path} has expired {_days(-left_s)} ago", renew)
    if dates.not_before > dates.now:
        return fail(
            f"{dates.path} is valid only in {_days(dates.not_before - dates.now)}",
            "set the clock of this machine, or of the one that made the certificate",
        )
    if left_s < WARN_S:
        return warn(f"{dates.path} expires in {_days(left_s)}", renew)
    return ok(f"{dates.path} is valid for {_days(left_s)} more")


def _days(seconds: float) -> str:
    days = round(seconds / 86_400, 1)
    return "1 day" if days == 1 else f"{days:g} days"
