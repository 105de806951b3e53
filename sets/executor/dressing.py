"""Dresses a slot of a cluster before its first task: its orchestrator's docker driver cannot say all that is needed.

Places get their limits and their owner, and the image's own files in VOLUMEs appear. `sets.dresser` does it, in
the mount namespace of the slot's guest, which waits meanwhile. The guest is held by a descriptor of its process, not by
a number that may be used again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from typing import Final

from scheduler.launchers.doorway import Dressing
from sets.dresser import DRESSER, unusable
from sets.executor import protocol
from sets.executor.door import NotTheGuest, check_is_init
from sets.executor.protocol import CleanedMessage, ProtocolError

DRESS_S: Final = 10.0
"""Longest time, in seconds, for the program, which takes a few milliseconds."""
START_S: Final = 60.0
"""Longest time, in seconds, that the guest may take afterwards to fill its places and report."""


class DressingError(Exception):
    """The slot cannot be dressed, and must take no task."""


async def dress(connection: socket.socket, pid: int, order: Dressing) -> None:
    """Dress the slot whose guest, process `pid`, waits at the other end of `connection`, and wait until it is clean.

    Raises `DressingError`, `OSError`.
    """
    await asyncio.to_thread(_run, connection, pid, order)
    connection.send(protocol.encode_dressed())
    await _until_clean(connection)


def _run(connection: socket.socket, pid: int, order: Dressing) -> None:
    try:
        guest = os.pidfd_open(pid)
    except OSError as error:
        raise DressingError(f"its guest is gone: {error.strerror}") from error
    try:
        _check_waits(connection, pid)
        command = [str(DRESSER), str(guest), str(order.inodes), *order.places]
        command += ["--", *order.uncovered] if order.uncovered else []
        done = subprocess.run(
            command, pass_fds=(guest,), env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=DRESS_S
        )
    except OSError as error:
        raise DressingError(unusable() or f"its helper does not start: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise DressingError(f"that took longer than {DRESS_S:g} s") from error
    finally:
        os.close(guest)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise DressingError(said or f"its helper ended with {done.returncode}")


def _check_waits(connection: socket.socket, pid: int) -> None:
    """Check that the process that connected is still there, and so is the one that has its number now."""
    try:
        check_is_init(pid)
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    except (NotTheGuest, OSError) as error:
        raise DressingError(f"its guest is gone: {error}") from error
    raise DressingError("its guest did not wait")


async def _until_clean(connection: socket.socket) -> None:
    try:
        async with asyncio.timeout(START_S):
            data = await asyncio.get_running_loop().sock_recv(connection, protocol.MESSAGE_BYTES)
    except TimeoutError as error:
        raise DressingError(f"its guest did not report for {START_S:g} s") from error
    if not data:
        raise DressingError("its guest ended while it took its places")
    try:
        message = protocol.decode(memoryview(data))
    except ProtocolError as error:
        raise DressingError(f"its guest misbehaved: {error}") from error
    if not isinstance(message, CleanedMessage) or not message.ok:
        raise DressingError("its guest misbehaved: it did not report that its slot is clean")
