"""Identifies the code that a part of the local stack runs, so that `make up` notices newer code in the checkout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

VARIABLE: Final = "GC_LOCAL_SOURCES"
"""Environment variable that a part is started with: the digest of its code."""
OF_ROUTER: Final = ("requirements/runtime.txt", "router")
"""Files and folders of a checkout that a router runs."""
OF_SETS: Final = ("requirements/runtime.txt", "scheduler", "sets")
"""Files and folders of a checkout that a set runs, including the guest."""
_NOT_RUN: Final = frozenset({".c", ".h", ".md", ".pyc"})


def digest(root: Path, names: Iterable[str]) -> str:
    """Return a digest of these files, and of all that is run in these folders, of a checkout.

    Only contents count, as every file of a new checkout has a new time. A missing file counts as empty.
    """
    found = hashlib.sha256()
    for path in sorted({path for name in names for path in _files(root / name)}):
        found.update(f"{path.relative_to(root)}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (each for each in path.rglob("*") if each.suffix not in _NOT_RUN and each.is_file())
