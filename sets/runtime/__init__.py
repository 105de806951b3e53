"""gcompute-runc, the OCI runtime that gives each slot host ids of its own: its sources and the built program."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sets import built

NAME: Final = "gcompute-runc"
"""Its name in the setting `runtime`, in an engine's daemon.json, and in /etc/subuid."""
RUNTIME_BINARY: Final = Path(__file__).with_name(NAME)


def unusable() -> str:
    """Return why the built runtime cannot be used, and the remedy; empty if it was built from the present sources."""
    return built.unusable(RUNTIME_BINARY, RUNTIME_BINARY.parent, "the runtime", "build_runtime")
