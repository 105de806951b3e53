"""Syncs files and folders, so that they survive loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(path: Path) -> None:
    """Sync what the file holds. Its name is its folder's."""
    _sync(path, 0)


def sync_folder(path: Path) -> None:
    """Sync the names of a folder's files: new ones, and those that are gone."""
    _sync(path, os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
