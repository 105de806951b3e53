"""The guest, PID 1 of every slot: its sources, its contract `PROTOCOL.md`, and the built program `guest`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

GUEST_BINARY: Final = Path(__file__).with_name("guest")
GUEST_SOURCES: Final = Path(__file__).parent


def unusable(program: Path = GUEST_BINARY, folder: Path = GUEST_SOURCES) -> str:
    """Return why the built guest cannot be used, and the remedy; empty if it was built from the sources in `folder`.

    A guest built from other sources may speak another protocol: its slots would never become ready, and every task
    would wait in vain. The build puts the sources' digest into the program as its build id (setup.py).
    """
    remedy = "build it with `python setup.py build_guest`"
    try:
        built_from = program.read_bytes()
    except FileNotFoundError:
        return f"the guest {program} is missing; {remedy}"
    sources = b"".join(source.read_bytes() for source in sorted(folder.glob("*.[ch]")))
    if hashlib.sha256(sources).digest()[:20] not in built_from:
        return f"the guest {program} was built from other sources; {remedy}"
    return ""
