"""The OCI runtimes that the private engine offers besides its own runc: ours, and what is installed on this machine.

`GC_RUNTIME=NAME make up` has the local sets run their slots with one of them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from ops.setup import userns

OWN: Final = "gcompute-runc"
"""The runtime that gives each slot host ids of its own (sets/runtime/README.md)."""
_BINARY: Final = Path(__file__).resolve().parents[2] / "sets/runtime" / OWN
_OTHERS: Final[dict[str, tuple[str, ...]]] = {
    "crun": (),
    # Guests connect to the executor's socket, which is a file of the host.
    "runsc": ("--host-uds=open", "--platform=systrap", "--network=none"),
}
"""Further runtimes that are offered when they are on PATH, and their arguments."""


def asked() -> str | None:
    """Return the runtime that the environment selects for the local sets; None for the engine's own."""
    return os.environ.get("GC_RUNTIME") or None


def offered() -> dict[str, dict[str, str | list[str]]]:
    """Return `runtimes` of the private engine's daemon.json."""
    found: dict[str, dict[str, str | list[str]]] = {}
    if _BINARY.exists():
        found[OWN] = {"path": str(_BINARY)}
    for name, arguments in _OTHERS.items():
        if (path := shutil.which(name)) is not None:
            found[name] = {"path": path, "runtimeArgs": [*arguments]} if arguments else {"path": path}
    return found


def prepare() -> None:
    """Give our runtime its host ids, if it is the one that the environment selects. Needs root. Raises EngineFailed."""
    if asked() == OWN:
        userns.prepare(userns.RUNTIME)
