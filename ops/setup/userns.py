"""Host ids for the private engine whose containers run in a user namespace: a system user and its ranges.

Docker's `userns-remap` takes the ids from a user's ranges in /etc/subuid and /etc/subgid.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from ops.setup.errors import EngineFailed, NoEngine

USER: Final = "gcompute-slots"
"""Our own user, as the ranges of root or `dockremap` may belong to another engine."""

COUNT: Final = 1 << 30
"""Number of ids in a range. Some images have files and USERs with ids beyond Docker's usual 65,536."""

STARTS: Final = (2 << 30, 1 << 30)
"""Possible starts of a range. Ids from 2^31 on are usually free: Debian, systemd and directory services end below."""

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


def free_start(table: str) -> int | None:
    """Return a start of `COUNT` ids that are free in this table; None if none is."""
    taken = ranges(table)
    for start in STARTS:
        if all(first + count <= start or start + COUNT <= first for _, first, count in taken):
            return start
    return None


def prepare() -> str:
    """Make the user and its ranges if they are missing; return the user's name. Needs root. Raises EngineFailed."""
    mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    if mapped < STARTS[-1] + COUNT:
        raise _impossible(f"this machine has {mapped} user ids, too few to give slots ids of their own")
    if subprocess.run(["getent", "passwd", USER], capture_output=True).returncode != 0:
        _call("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", USER)
    for table, option in zip(TABLES, ("--add-subuids", "--add-subgids"), strict=True):
        table.touch()
        text = table.read_text()
        if any(user == USER for user, _, _ in ranges(text)):
            continue
        start = free_start(text)
        if start is None:
            raise _impossible(f"{table} has no {COUNT} ids left from {STARTS[1]} or {STARTS[0]} on")
        _call("usermod", option, f"{start}-{start + COUNT - 1}", USER)
    return USER


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise _impossible(f"{' '.join(command)}: {done.stderr.strip()}")


def _impossible(problem: str) -> EngineFailed:
    return EngineFailed(f"The private engine has no host ids for slots: {problem}\nUnset GC_ENGINE_USERNS.")
