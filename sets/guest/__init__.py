"""The guest, PID 1 of every slot: its sources, its contract `PROTOCOL.md`, and the built program `guest`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sets import built

GUEST_BINARY: Final = Path(__file__).with_name("guest")
GUEST_SOURCES: Final = Path(__file__).parent


def unusable(program: Path = GUEST_BINARY, folder: Path = GUEST_SOURCES) -> str:
    """Return why the built guest cannot be used, and the remedy; empty if it was built from the sources in `folder`.

    A guest built from other sources may speak another protocol: its slots would never become ready, and every task
    would wait in vain.
    """
    return built.unusable(program, folder, "the guest", "build_guest")
