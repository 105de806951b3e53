"""The executor of one machine: accepts its slots' guests, and runs programs in them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import shutil
import socket
import struct
from pathlib import Path
from typing import Final

import structlog

from scheduler.errors import SlotLost
from scheduler.execution import SlotAddress, SlotEvents, Work
from sets.executor import protocol
from sets.executor.cgroup import CgroupError
from sets.executor.protocol import ProtocolError
from sets.executor.slot import Slot, SlotRun, SlotState

log = structlog.get_logger()

SOCKET_NAME: Final = "executor.sock"
HELLO_TIMEOUT_S: Final = 5.0
BACKLOG: Final = 4
_UCRED: Final = struct.Struct("=iII")


class NotTheGuest(Exception):
    """Somebody else than the slot's guest connected."""


class _Listener:
    """A slot's own folder and listening socket, so that nobody can fill another's backlog."""

    def __init__(self, directory: Path, token: str) -> None:
        self.directory = directory
        self.token = token
        directory.mkdir(mode=0o755, parents=True)
        # Any USER of the image must pass; nobody on the host can, for the folder above is closed.
        directory.chmod(0o755)
        path = directory / SOCKET_NAME
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._bind(path)
        path.chmod(0o666)
        self.socket.listen(BACKLOG)

    def _bind(self, path: Path) -> None:
        # A unix socket's path ends at 108 bytes, a state folder may lie deeper: bind through the folder's descriptor.
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.socket.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)

    def close(self) -> None:
        self.socket.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class LocalExecutor:
    """Runs programs in this machine's slots (`scheduler.execution.Executor`). `folder` holds their sockets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._slots: dict[str, Slot] = {}
        self._listeners: dict[str, _Listener] = {}
        self._events: SlotEvents | None = None
        self._greetings: set[asyncio.Task[None]] = set()
        # One buffer for all: a message is decoded, and its bytes copied out, before the next is read.
        self._buffer = memoryview(bytearray(protocol.MESSAGE_BYTES))

    async def open(self, events: SlotEvents) -> None:
        self._events = events
        self._loop = asyncio.get_running_loop()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)

    async def close(self) -> None:
        for slot_id in list(self._listeners):
            self.discard(slot_id)
        for greeting in list(self._greetings):
            greeting.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    def prepare(self, slot_id: str) -> SlotAddress:
        listener = _Listener(self._folder / slot_id, secrets.token_hex(32))
        assert self._events is not None
        self._listeners[slot_id] = listener
        self._slots[slot_id] = Slot(
            slot_id, self._loop, self._buffer, self._events.slot_freed, self._slot_lost
        )
        self._loop.add_reader(listener.socket.fileno(), self._accept, slot_id)
        return SlotAddress(listener.directory, listener.token)

    def run(self, slot_id: str, work: Work) -> SlotRun:
        slot = self._slots.get(slot_id)
        if slot is None:
            raise SlotLost(f"slot {slot_id} is gone")
        return slot.run(work)

    def discard(self, slot_id: str) -> None:
        slot = self._slots.pop(slot_id, None)
        if slot is not None:
            slot.retire()
        self._close_listener(slot_id)

    def _close_listener(self, slot_id: str) -> None:
        listener = self._listeners.pop(slot_id, None)
        if listener is not None:
            self._loop.remove_reader(listener.socket.fileno())
            listener.close()

    def _slot_lost(self, slot_id: str, reason: str) -> None:
        self._slots.pop(slot_id, None)
        self._close_listener(slot_id)
        assert self._events is not None
        self._events.slot_lost(slot_id, reason)

    # -- connections

    def _accept(self, slot_id: str) -> None:
        listener = self._listeners.get(slot_id)
        if listener is None:
            return
        try:
            connection, _ = listener.socket.accept()
        except OSError:
            return
        if len(self._greetings) >= 4 * BACKLOG + len(self._slots):
            connection.close()
            return
        greeting = self._loop.create_task(self._greet(slot_id, listener.token, connection))
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, slot_id: str, token: str, connection: socket.socket) -> None:
        """Let the guest in, and nobody else: the algorithm can reach this socket as well."""
        kept = False
        try:
            connection.setblocking(False)
            pid = _peer_pid(connection)
            _check_is_init(pid)
            data = await asyncio.wait_for(self._loop.sock_recv(connection, 4096), HELLO_TIMEOUT_S)
            hello = protocol.decode(memoryview(data))
            if not isinstance(hello, protocol.Hello) or not hmac.compare_digest(hello.token, token.encode()):
                raise NotTheGuest("its HELLO is wrong")
            if hello.version != protocol.VERSION:
                raise NotTheGuest(
                    f"it speaks version {hello.version} of the protocol, not {protocol.VERSION}"
                )
            slot = self._slots.get(slot_id)
            if slot is None or slot.state is not SlotState.CONNECTING:
                raise NotTheGuest("the slot has its guest already")
            slot.connected(connection, pid)
            kept = True
        except (NotTheGuest, ProtocolError, CgroupError, OSError, TimeoutError) as error:
            log.warning(
                "connection to a slot's socket refused", slot=slot_id, error=str(error) or repr(error)
            )
        finally:
            if not kept:
                connection.close()
        if kept and self._events is not None:
            self._events.slot_ready(slot_id)


def _peer_pid(connection: socket.socket) -> int:
    pid: int = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    if pid <= 0:
        raise NotTheGuest("its process cannot be seen from here: run the set in the host's PID namespace")
    return pid


def _check_is_init(pid: int) -> None:
    """The guest is process 1 of a PID namespace of its own; a program beside it is not."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                if len(numbers) >= 2 and numbers[-1] == "1":
                    return
                raise NotTheGuest(f"process {pid} is not the init process of a container")
    raise NotTheGuest(f"process {pid} is gone")
