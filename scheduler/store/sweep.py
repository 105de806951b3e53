"""Removes blobs that no row names from their folders."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

UNFINISHED: Final = "unfinished"
"""Name of the folder of blobs that are being written."""


def sweep(directory: Path, in_use: Collection[str], being_written: Collection[str], before_s: float) -> int:
    """Delete blobs outside `in_use`, and unfinished ones outside `being_written`; return their number.

    Deletes only files that were last written before `before_s`, a Unix time. Raises `OSError`.
    """
    deleted = 0
    if not directory.exists():
        return deleted
    for folder in sorted(directory.iterdir()):
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in (being_written if folder.name == UNFINISHED else in_use):
                    continue
                try:
                    if entry.stat(follow_symlinks=False).st_mtime < before_s:
                        os.unlink(entry.path)
                        deleted += 1
                except FileNotFoundError:
                    continue  # deleted or finished meanwhile
    return deleted
