"""Where slots meet the executor of their own machine: a folder on the host, mounted into the slot's container.

The executor makes the folder before the slot is started, listens in it, and removes it; the launcher mounts it, and may
have the executor leave a file there for the guest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from scheduler.errors import EngineUnavailable

SOCKET_FILE: Final = "executor.sock"
"""The socket in a slot's folder at which the guest finds its executor."""
CONTENT_FILE: Final = "content"
"""Beside the socket: what a launcher has the guest write to the slot's places at the start."""

CPU_FILE: Final = "cpu"
"""Beside the socket, where the executor is to limit the slot's CPU: hundredths of a core."""

SlotFolder = Callable[[str], Path]
"""The host folder of a slot, by the slot's id."""
LeaveContent = Callable[[str, bytes], Awaitable[None]]
"""Leaves a slot's content beside its socket, by the slot's id. Raises `EngineUnavailable`."""


def into(folder_of: SlotFolder) -> LeaveContent:
    """Return what leaves content in folders of this machine."""

    async def leave(slot_id: str, content: bytes) -> None:
        await asyncio.to_thread(write_content, folder_of(slot_id), content)

    return leave


def write_content(folder: Path, content: bytes) -> None:
    """Write what places begin with to a slot's folder. Raises `EngineUnavailable`."""
    _write(folder / CONTENT_FILE, content, "what HOME begins with")


def write_cpu(folder: Path, percent: int) -> None:
    """Write the CPU, hundredths of a core, to which the executor is to limit a slot. Raises `EngineUnavailable`."""
    _write(folder / CPU_FILE, b"%d" % percent, "the limit of its CPU")


def read_cpu(folder: Path) -> int | None:
    """Return that limit, or None where the launcher has written none. Raises `OSError`, `ValueError`."""
    try:
        return int((folder / CPU_FILE).read_bytes()[:16])
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes, what: str) -> None:
    try:
        path.write_bytes(content)
        path.chmod(0o644)
    except OSError as error:
        raise EngineUnavailable(f"{what} cannot be written to {path.parent}: {error.strerror}") from error
