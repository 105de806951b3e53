"""Writes a file whole: after a crash or a loss of power it has either its old content or its new one."""

from __future__ import annotations

import os
from pathlib import Path

from scheduler.store.sync import sync_folder


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the file's content; it is on disk when this returns. Raises `OSError`."""
    unfinished = path.with_name(f".{path.name}.new")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    unfinished.replace(path)
    sync_folder(path.parent)
