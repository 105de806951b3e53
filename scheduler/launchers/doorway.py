"""Where slots meet the executor of their own machine: a folder on the host, mounted into the slot's container.

The executor makes the folder before the slot is started, listens in it, and removes it; the launcher mounts it, and may
have the executor leave files there: for the guest, or for itself, such as how to dress the slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from scheduler.errors import EngineUnavailable

SOCKET_FILE: Final = "executor.sock"
"""The socket in a slot's folder at which the guest finds its executor."""
CONTENT_FILE: Final = "content"
"""Beside the socket: what a launcher has the guest write to the slot's places at the start."""

DRESSING_FILE: Final = "dressing"
"""Beside the socket, where the executor is to dress the slot: a `Dressing`. The guest waits where it sees that file."""
CPU_FILE: Final = "cpu"
"""Beside the socket, where the executor is to limit the slot's CPU: hundredths of a core."""

SlotFolder = Callable[[str], Path]
"""The host folder of a slot, by the slot's id."""
LeaveFile = Callable[[str, str, bytes], Awaitable[None]]
"""Leaves a file beside a slot's socket: the slot's id, one of `FILES`, its bytes. Raises `EngineRefused`,
`EngineUnavailable`."""
FILES: Final = {
    CONTENT_FILE: "what HOME begins with",
    DRESSING_FILE: "how to dress the slot",
    CPU_FILE: "the limit of its CPU",
}
"""Files that launchers leave, and what each holds."""

Place = Annotated[str, Meta(pattern=r"^/[^\x00]+$", max_length=4096)]


class Dressing(msgspec.Struct, frozen=True):
    """An order to the executor: how to change a slot before its first task, as the slot's engine cannot be told.

    `places`: each gets `inodes`, may hold programs, and belongs to the guest's user, except /dev/shm. `uncovered`:
    VOLUMEs that a tmpfs covers, of which the slot is to see the image's own files, read-only.
    """

    places: Annotated[tuple[Place, ...], Meta(max_length=64)]
    inodes: Annotated[int, Meta(gt=0, le=1 << 32)]
    uncovered: Annotated[tuple[Place, ...], Meta(max_length=64)] = ()


def into(folder_of: SlotFolder) -> LeaveFile:
    """Return what leaves files in folders of this machine."""

    async def leave(slot_id: str, file: str, data: bytes) -> None:
        await asyncio.to_thread(write_file, folder_of(slot_id), file, data)

    return leave


def write_file(folder: Path, file: str, data: bytes) -> None:
    """Write one of `FILES` to a slot's folder. Raises `EngineUnavailable`."""
    _write(folder / file, data, FILES[file])


def read_dressing(folder: Path) -> Dressing | None:
    """Return how to dress a slot, or None where its launcher has left nothing. Raises `OSError`, `ValueError`."""
    try:
        return msgspec.json.decode((folder / DRESSING_FILE).read_bytes(), type=Dressing)
    except FileNotFoundError:
        return None


def read_cpu(folder: Path) -> int | None:
    """Return the limit of a slot's CPU, in hundredths of a core, or None where its launcher has left none.

    Raises `OSError`, `ValueError`.
    """
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
