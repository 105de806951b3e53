"""The entry of a slot's guest, which lets in no one else: the slot's folder, its socket, and the greeting."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from scheduler.launchers.doorway import CPU_FILE, FILES, SOCKET_FILE
from sets.executor import protocol
from sets.executor.protocol import Hello, ProtocolError

log = structlog.get_logger()

HELLO_TIMEOUT_S: Final = 5.0
BACKLOG: Final = 4
GREETINGS: Final = 4
"""Most connections that may owe their HELLO at a time. The oldest gives way, so that silent ones block no other."""
ACCEPTS_A_TURN: Final = 16
PAUSE_S: Final = 0.1
"""Pause in seconds after a wrong HELLO, whose sender may try again for ever, and while no descriptor is left here."""
REFUSALS_LOGGED: Final = 3
_UCRED: Final = struct.Struct("=iII")


class NotTheGuest(Exception):
    """A process that is not the slot's guest connected."""


class UselessGuest(Exception):
    """The slot's guest connected, but it cannot be used."""


class Door:
    """A slot's own folder with a listening socket. Each slot has one, so that none can fill another's backlog.

    It opens once. The algorithm reaches this socket as well, but runs only after its guest was let in. Then the socket
    is closed, so the algorithm can neither pass for the guest, nor cost this process anything, nor park a descriptor
    here. `admitted` gets the connection, which is its own from then on, the guest's process id, and whether the guest
    waits until its slot is dressed; `failed` is called with a reason if the guest itself cannot be used.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Path,
        token: str,
        admitted: Callable[[socket.socket, int, bool], None],
        failed: Callable[[str], None],
    ) -> None:
        """Raises `OSError`, and leaves nothing."""
        self.directory = directory
        self._loop = loop
        self._token = token.encode()
        self._admitted = admitted
        self._failed = failed
        self._greetings: dict[socket.socket, asyncio.TimerHandle] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._refusals = 0
        directory.mkdir(mode=0o755, parents=True)
        self._socket: socket.socket | None = None
        try:
            # Any USER of the image must pass. No user of the host can, because the folder above is closed.
            directory.chmod(0o755)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            _bind(self._socket, directory / SOCKET_FILE)
            (directory / SOCKET_FILE).chmod(0o666)
            self._socket.listen(BACKLOG)
            loop.add_reader(self._socket.fileno(), self._accept)
        except OSError:
            self.remove()
            raise

    def close(self) -> None:
        """Stop listening. The folder stays, because the container has it mounted."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for connection in list(self._greetings):
            self._forget(connection)
            connection.close()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def remove(self) -> None:
        """`close`, and remove the folder."""
        self.close()
        # No one else writes there, and this needs no descriptor: there may be none left.
        with contextlib.suppress(OSError):
            for file in (SOCKET_FILE, CPU_FILE, *FILES):
                (self.directory / file).unlink(missing_ok=True)
            self.directory.rmdir()

    # -- greetings

    def _accept(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if self._socket is None or self._pause is not None:
                return
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.error("a slot's guest cannot be accepted", slot=self.directory.name, error=str(error))
                self._rest()
                return
            self._greet(connection)

    def _greet(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            pid = _peer_pid(connection)
            check_is_init(pid)
        except (NotTheGuest, OSError) as error:
            self._refuse(connection, error)
            return
        except UselessGuest as error:
            self._refuse(connection, error)
            self._failed(str(error))
            return
        if self._hear(connection, pid):
            return
        if len(self._greetings) == GREETINGS:
            oldest = next(iter(self._greetings))
            self._refuse(oldest, NotTheGuest("it was silent while others connected"))
        silence = NotTheGuest(f"it said nothing for {HELLO_TIMEOUT_S:g} s")
        self._greetings[connection] = self._loop.call_later(
            HELLO_TIMEOUT_S, self._refuse, connection, silence
        )
        self._loop.add_reader(connection.fileno(), self._hear, connection, pid)

    def _hear(self, connection: socket.socket, pid: int) -> bool:
        """Take the HELLO. False if it has not arrived yet."""
        try:
            # One byte more than any HELLO has: what is longer is seen to be. Descriptors with it are dropped.
            data = connection.recv(protocol.HELLO_BYTES + 1)
            hello = protocol.decode(memoryview(data))
            if not isinstance(hello, Hello) or not hmac.compare_digest(hello.token, self._token):
                raise NotTheGuest("its HELLO is wrong")
            if hello.version != protocol.VERSION:
                raise UselessGuest(
                    f"its guest speaks version {hello.version} of the protocol, not {protocol.VERSION}"
                )
        except BlockingIOError:
            return False
        except (NotTheGuest, ProtocolError, OSError) as error:
            self._refuse(connection, error)
            self._rest()
        except UselessGuest as error:
            self._refuse(connection, error)
            self._failed(str(error))
        else:
            self._forget(connection)
            self.close()
            self._admitted(connection, pid, hello.undressed)
        return True

    def _refuse(self, connection: socket.socket, error: Exception) -> None:
        self._forget(connection)
        connection.close()
        self._refusals += 1
        if self._refusals <= REFUSALS_LOGGED:
            log.warning(
                "connection to a slot's socket refused",
                slot=self.directory.name,
                error=str(error) or repr(error),
                last_told=self._refusals == REFUSALS_LOGGED,
            )

    def _forget(self, connection: socket.socket) -> None:
        timer = self._greetings.pop(connection, None)
        if timer is not None:
            timer.cancel()
            self._loop.remove_reader(connection.fileno())

    def _rest(self) -> None:
        if self._socket is not None and self._pause is None:
            self._loop.remove_reader(self._socket.fileno())
            self._pause = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)


def _bind(listener: socket.socket, path: Path) -> None:
    # A unix socket's path ends at 108 bytes, a state folder may lie deeper: bind through the folder's descriptor.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _peer_pid(connection: socket.socket) -> int:
    pid: int = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    if pid <= 0:
        raise UselessGuest(
            "its guest's process cannot be seen from here: run the set in the host's PID namespace"
        )
    return pid


def check_is_init(pid: int) -> None:
    """Raise `NotTheGuest` unless the process is process 1 of its own PID namespace, as only the guest is."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                if len(numbers) >= 2 and numbers[-1] == "1":
                    return
                raise NotTheGuest(f"process {pid} is not the init process of a container")
    raise NotTheGuest(f"process {pid} is gone")
