"""The files that a set's engine mounts into every slot: the guest and the slots' /etc/hosts."""

from __future__ import annotations

import os
from pathlib import Path

from scheduler.launchers.hardening import HOSTS_FILE
from scheduler.launchers.nomad.node_files import HOSTS, guest_name
from sets.guest import GUEST_BINARY


def mounted_files(folder: Path | None) -> tuple[Path, Path]:
    """Return the paths of the guest and of the hosts file as the engine finds them.

    They are those of this installation, or copies in `folder`. Guests of other builds stay there: slots may still run
    them. Raises `OSError` if the folder cannot be written.
    """
    if folder is None:
        return GUEST_BINARY, HOSTS_FILE
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    guest = GUEST_BINARY.read_bytes()
    return (
        _copied(guest, folder / guest_name(guest), 0o755),
        _copied(HOSTS_FILE.read_bytes(), folder / HOSTS, 0o644),
    )


def _copied(content: bytes, path: Path, mode: int) -> Path:
    """Write a file in one step, unless it is there: slots may start from it at any time."""
    if not (path.is_file() and path.read_bytes() == content):
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_bytes(content)
        unfinished.chmod(mode)
        unfinished.replace(path)
    return path
