"""The guest, PID 1 of every slot: its source `guest.c`, its contract `PROTOCOL.md`, and the built program `guest`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

GUEST_BINARY: Final = Path(__file__).with_name("guest")
GUEST_SOURCE: Final = Path(__file__).with_name("guest.c")


def unusable(program: Path = GUEST_BINARY, source: Path = GUEST_SOURCE) -> str:
    """Return why the built guest cannot be used, and the remedy; empty if it was built from the present source.

    A guest built from another source may speak another protocol: its slots would never become ready, and every task
    would wait in vain. The build puts the source's digest into the program as its build id (setup.py).
    """
    remedy = "build it with `python setup.py build_guest`"
    try:
        built_from = program.read_bytes()
    except FileNotFoundError:
        return f"the guest {program} is missing; {remedy}"
    if hashlib.sha256(source.read_bytes()).digest()[:20] not in built_from:
        return f"the guest {program} was built from another {source.name}; {remedy}"
    return ""
