"""The name of the running build: the package's version and, if known, the commit."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

VARIABLE: Final = "GC_BUILD"
"""Environment variable by which an operator names the build."""
BUILD_CHARS: Final = 128
PACKAGE: Final = "general-compute"
_ROOT: Final = Path(__file__).resolve().parents[1]
_GIT_TIMEOUT_S: Final = 5.0


def build_name(root: Path = _ROOT) -> str:
    """Return `GC_BUILD` if it is set, else the version: `0.1.0`, or `0.1.0+018bbc8ab012` in a checkout at `root`, with
    `.dirty` appended if files have been changed."""
    named = "".join(filter(str.isprintable, os.environ.get(VARIABLE, "")))[:BUILD_CHARS]
    return named or _version() + _commit(root)


def _version() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown"


def _commit(root: Path) -> str:
    # Without this check, Git would search the parent folders, and could find another project.
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--dirty=.dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "+" + found.stdout.strip()
