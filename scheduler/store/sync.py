"""Syncs files and folders, so that they survive loss of power."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PIECE_BYTES: Final = 1024 * 1024
"""Bytes that `write_again` has in memory."""


def sync_file(path: Path) -> None:
    """Sync what the file holds. Its name is its folder's."""
    _sync(path, 0)


def sync_folder(path: Path) -> None:
    """Sync the names of a folder's files: new ones, and those that are gone."""
    _sync(path, os.O_DIRECTORY)


def write_again(path: Path) -> None:
    """Write what the file holds once more, and sync it. Nobody else may write it meanwhile.

    After a sync that failed the system takes the file's pages for written, though they may never have reached the disk:
    another sync succeeds, and means nothing, unless they were written again.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        at = 0
        while piece := os.pread(fd, PIECE_BYTES, at):
            at += os.pwrite(fd, piece, at)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
