"""The executor of one machine: lets its slots' guests in, and runs programs in them.

A guest that lost its connection connects again, but is not let in a second time. A unix socket between living processes
does not break by itself, so either its slot was given up here, or this executor is a new one, with new slots.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
from functools import partial
from pathlib import Path

import structlog

from scheduler.errors import SlotLost
from scheduler.execution import SlotEvents, Work
from scheduler.launchers.doorway import Dressing, read_cpu, read_dressing, write_file
from scheduler.task import Lease
from sets.executor import protocol
from sets.executor.cgroup import CgroupError, limit_cpu
from sets.executor.door import Door
from sets.executor.dressing import DressingError, dress
from sets.executor.run import SlotRun
from sets.executor.slot import NO_LEASE, Slot

log = structlog.get_logger()


def shared_member(token: str) -> str:
    """Return the name of a slot's folder in a folder that all slots of a machine see."""
    return hashlib.sha256(token.encode()).hexdigest()[:32]


class LocalExecutor:
    """Runs programs in this machine's slots (`scheduler.execution.Executor`). `folder` holds their sockets.

    `shared`: all slots of the machine see the folder, instead of each its own member. Then no slot can list it, and the
    members' names, which follow from the slots' tokens, cannot be guessed.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._folder = folder.resolve()
        self._shared = shared
        self._folders: dict[str, Path] = {}
        self._slots: dict[str, Slot] = {}
        self._doors: dict[str, Door] = {}
        self._dressings: dict[str, asyncio.Task[None]] = {}
        self._events: SlotEvents | None = None
        # One buffer for all: a message is decoded, and its bytes copied out, before the next is read.
        self._buffer = memoryview(bytearray(protocol.MESSAGE_BYTES))

    async def open(self, events: SlotEvents) -> None:
        self._events = events
        self._loop = asyncio.get_running_loop()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Also if it could not be made again. A slot's root has no capability, and needs the missing right to read.
        self._folder.chmod(0o311 if self._shared else 0o700)

    async def close(self) -> None:
        for slot_id in list(self._doors):
            self.discard(slot_id)
        shutil.rmtree(self._folder, ignore_errors=True)

    def folder_of(self, slot_id: str) -> Path:
        """Where the executor listens for a slot of this machine (`scheduler.launchers.doorway.SlotFolder`)."""
        return self._folders.get(slot_id) or self._folder / slot_id

    async def leave(self, slot_id: str, file: str, data: bytes) -> None:
        """Leave a file beside the slot's socket (`scheduler.launchers.doorway.LeaveFile`)."""
        await asyncio.to_thread(write_file, self.folder_of(slot_id), file, data)

    async def expect(self, slot_id: str, token: str, node: str = "") -> None:
        """Listen for a slot that is about to be started on this machine; `node` names no other. Raises `OSError`."""
        assert self._events is not None
        folder = self._folder / (shared_member(token) if self._shared else slot_id)
        door = Door(
            self._loop,
            folder,
            token,
            partial(self._admitted, slot_id),
            lambda reason: self._slots[slot_id].fail(reason),
        )
        if self._shared:
            self._folders[slot_id] = folder
        self._doors[slot_id] = door
        self._slots[slot_id] = Slot(
            slot_id,
            self._loop,
            self._buffer,
            self._events.slot_freed,
            self._slot_lost,
            self._events.prestart_unfit,
            self._events.left_over,
        )

    def run(self, slot_id: str, work: Work, lease: Lease = NO_LEASE) -> SlotRun:
        slot = self._slots.get(slot_id)
        if slot is None:
            raise SlotLost(f"slot {slot_id} is gone")
        return slot.run(work, lease)

    def discard(self, slot_id: str) -> None:
        slot = self._slots.pop(slot_id, None)
        if slot is not None:
            slot.retire()
        self._remove_door(slot_id)

    def _admitted(self, slot_id: str, connection: socket.socket, pid: int, undressed: bool) -> None:
        slot = self._slots[slot_id]
        try:
            order = read_dressing(self.folder_of(slot_id)) if self._shared else None
            if undressed != (order is not None):
                raise ValueError(
                    "it and the launcher disagree whether its slot is to be dressed; run set, registrar and executor "
                    "of one build"
                )
            if self._shared:
                # A slot of a cluster: its job reserves less than it may use, and so cannot say its limit.
                limit_cpu(pid, read_cpu(self.folder_of(slot_id)))
            if order is None:
                self._connect(slot, connection, pid)
                return
        except (CgroupError, OSError, ValueError) as error:
            connection.close()
            slot.fail(f"its guest could not be let in: {error}")
            return
        self._dressings[slot_id] = asyncio.create_task(self._dress(slot, connection, pid, order))

    def _connect(self, slot: Slot, connection: socket.socket, pid: int) -> None:
        assert self._events is not None
        slot.connected(connection, pid)
        self._events.slot_ready(slot.id)

    async def _dress(self, slot: Slot, connection: socket.socket, pid: int, order: Dressing) -> None:
        """Dress a slot; whatever hinders that ends it. Cancelled where the slot is not wanted any more."""
        try:
            await dress(connection, pid, order)
            self._connect(slot, connection, pid)
        except (CgroupError, DressingError, OSError, ValueError) as error:
            connection.close()
            slot.fail(f"it could not be dressed: {error}")
        except asyncio.CancelledError:
            connection.close()
            raise
        finally:
            self._dressings.pop(slot.id, None)

    def _slot_lost(self, slot_id: str, reason: str) -> None:
        assert self._events is not None
        self._slots.pop(slot_id, None)
        self._remove_door(slot_id)
        self._events.slot_lost(slot_id, reason)

    def _remove_door(self, slot_id: str) -> None:
        dressing = self._dressings.pop(slot_id, None)
        if dressing is not None and dressing is not asyncio.current_task():
            dressing.cancel()
        door = self._doors.pop(slot_id, None)
        if door is not None:
            door.remove()
        self._folders.pop(slot_id, None)
