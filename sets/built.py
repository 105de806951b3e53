"""The check of the C programs: each carries the digest of its sources as its build id (setup.py)."""

from __future__ import annotations

import hashlib
from pathlib import Path


def unusable(program: Path, folder: Path, name: str, command: str) -> str:
    """Return why a built program cannot be used, and the remedy; empty if it was built from the sources in `folder`.

    `name` is what messages call it, and `command` the command of setup.py that builds it.
    """
    remedy = f"build it with `python setup.py {command}`"
    try:
        built_from = program.read_bytes()
    except FileNotFoundError:
        return f"{name} {program} is missing; {remedy}"
    sources = b"".join(source.read_bytes() for source in sorted(folder.glob("*.[ch]")))
    if hashlib.sha256(sources).digest()[:20] not in built_from:
        return f"{name} {program} was built from other sources; {remedy}"
    return ""
