"""A guest's socket: whole messages both ways. Descriptors go inwards only: none is ever taken from a guest."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from sets.executor import protocol
from sets.executor.protocol import ProtocolError

SEND_BYTES: Final = 2 * protocol.MESSAGE_BYTES
"""Room for what is on its way to a guest: a task, and a KILL that its end overtook."""


class GuestGone(Exception):
    """The guest closed its end, or died."""


class GuestSocket:
    """Wraps a guest's SOCK_SEQPACKET socket, which never blocks. `buffer` is shared: only one message is read at a
    time."""

    def __init__(self, connection: socket.socket, buffer: memoryview) -> None:
        _make_room(connection)
        self._socket = connection
        self._buffer = buffer

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message whole, with copies of `fds`. Raises `OSError`, also where the socket is full."""
        if fds:
            socket.send_fds(self._socket, [message], fds)
        else:
            self._socket.send(message)

    def receive(self) -> protocol.Message | None:
        """Take one message. None: nothing has come. Raises `GuestGone`, `ProtocolError`, `OSError`."""
        try:
            # Without room for descriptors the kernel drops those that come, and says so.
            size, _, flags, _ = self._socket.recvmsg_into([self._buffer])
        except BlockingIOError:
            return None
        except ConnectionResetError:
            raise GuestGone from None
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("a message with descriptors")
        if not size:
            raise GuestGone
        if flags & socket.MSG_TRUNC:
            raise ProtocolError("a message that is too long")
        return protocol.decode(self._buffer[:size])

    def close(self) -> None:
        self._socket.close()


def _make_room(connection: socket.socket) -> None:
    """Enlarge the send buffer: with a small default of the host, a long command line would not fit into it."""
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < SEND_BYTES:
        # The kernel doubles what it is asked for, to have room for its own book-keeping.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES // 2)
