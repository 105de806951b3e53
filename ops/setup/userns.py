"""Host ids for containers that run in user namespaces: a system user and its ranges in /etc/subuid and /etc/subgid.

Docker's `userns-remap` takes the ids of all containers from such ranges, and so does our runtime, for each container
others.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.setup.errors import EngineFailed, NoEngine


@dataclass(frozen=True)
class Range:
    """The ids that a user is to have: `count` of them, from the first of `starts` on where all are free."""

    user: str
    count: int
    starts: tuple[int, ...]


ENGINE: Final = Range("gcompute-slots", 1 << 30, (2 << 30, 1 << 30))
"""Ids for the private engine. Our own user, as the ranges of root or `dockremap` may belong to another engine.

Some images have files and USERs with ids beyond Docker's usual 65,536. Ids from 2^31 on are usually free: Debian,
systemd and directory services end below."""

RUNTIME: Final = Range("gcompute-runc", 1 << 29, (3 << 30, 1 << 30))
"""Ids for the runtime `gcompute-runc`, which takes 131,072 for each container: enough for 4,096."""

TABLES: Final = (Path("/etc/subuid"), Path("/etc/subgid"))


def asked() -> bool:
    """Return True if the environment selects that engine. Raises NoEngine for an invalid GC_ENGINE_USERNS."""
    value = os.environ.get("GC_ENGINE_USERNS", "")
    if value not in ("", "0", "1"):
        raise NoEngine(f"GC_ENGINE_USERNS={value}: set it to 1, or unset it")
    return value == "1"


def ranges(table: str) -> list[tuple[str, int, int]]:
    """Return (user, first, count) of a table's lines; skip lines of another form."""
    fields = [line.split(":") for line in table.splitlines() if not line.startswith("#")]
    return [
        (each[0], int(each[1]), int(each[2]))
        for each in fields
        if len(each) == 3 and each[1].isdigit() and each[2].isdigit()
    ]


def free_start(table: str, wanted: Range = ENGINE) -> int | None:
    """Return a start of the wanted ids that are all free in this table; None if none is."""
    taken = ranges(table)
    for start in wanted.starts:
        if all(first + count <= start or start + wanted.count <= first for _, first, count in taken):
            return start
    return None


def prepare(wanted: Range = ENGINE) -> str:
    """Make the user and its ranges if they are missing; return the user's name. Needs root. Raises EngineFailed."""
    user = wanted.user
    mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    if mapped < wanted.starts[-1] + wanted.count:
        raise _impossible(f"this machine has {mapped} user ids, too few to give slots ids of their own")
    if subprocess.run(["getent", "passwd", user], capture_output=True).returncode != 0:
        _call("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", user)
    for table, option in zip(TABLES, ("--add-subuids", "--add-subgids"), strict=True):
        table.touch()
        text = table.read_text()
        if any(owner == user for owner, _, _ in ranges(text)):
            continue
        start = free_start(text, wanted)
        if start is None:
            first, second = wanted.starts
            raise _impossible(f"{table} has no {wanted.count} ids left from {second} or {first} on")
        _call("usermod", option, f"{start}-{start + wanted.count - 1}", user)
    return user


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise _impossible(f"{' '.join(command)}: {done.stderr.strip()}")


def _impossible(problem: str) -> EngineFailed:
    return EngineFailed(
        f"There are no host ids for slots: {problem}\nUnset GC_ENGINE_USERNS and GC_RUNTIME, or free some."
    )
