"""Looks at the runtime `gcompute-runc` and the tables of its host ids. May raise `OSError` or `CannotTell`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ops.doctor.engine import Engine
from ops.doctor.finding import CannotTell
from ops.doctor.own_ids import OwnIds
from ops.setup.userns import TABLES, ranges
from sets.runtime import NAME, RUNTIME_BINARY


def offered(found: Engine) -> bool:
    """Return True if slots of the engine may have this runtime."""
    return NAME in (found.info.get("Runtimes") or {})


def own_ids(found: Engine, host: str, slots: int, tables: Sequence[Path] = TABLES) -> OwnIds:
    """Look at what the engine at `host` would call, on its own machine."""
    if not host.startswith("unix://"):
        raise CannotTell("the engine is on another machine; run the doctor there")
    path = Path((found.info["Runtimes"][NAME] or {}).get("path") or NAME)
    unusable, present = "", False
    if not path.is_file():
        unusable = "is missing"
    elif not os.access(path, os.X_OK):
        unusable = "cannot be executed"
    else:
        present = RUNTIME_BINARY.is_file() and path.read_bytes() == RUNTIME_BINARY.read_bytes()
    return OwnIds(
        str(path),
        unusable,
        present,
        os.uname().release,
        any("name=userns" in str(option) for option in found.info.get("SecurityOptions") or ()),
        {str(table): _ids(table) for table in tables},
        slots,
    )


def _ids(table: Path) -> int:
    """Return the size of the first range, which alone the runtime uses."""
    text = table.read_text() if table.exists() else ""
    return next((count for user, _, count in ranges(text) if user == NAME), 0)
