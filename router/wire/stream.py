"""A non-blocking socket on the event loop, and the one buffer that all of them read into.

Sockets are used directly, not through asyncio transports: bytes are received into one reused 256 KiB buffer and sent
from it at once, so only the kernel copies a body. Bytes that a slow peer does not take at once stay there: the buffer
is lent to that stream until it drains (a bounded number of them; beyond that, reads get small and are copied), and the
other side is not read meanwhile. So each direction holds at most one unsent read.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import termios
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

BUFFER_BYTES: Final = 256 * 1024
SMALL_READ_BYTES: Final = 16 * 1024
COPY_BELOW_BYTES: Final = 32 * 1024
MAX_LOANS: Final = 96
MAX_PIECES: Final = 512
"""Pieces in one system call; the kernel takes 1,024."""

MAX_POSTERS: Final = 16
"""Maximum number of short messages that wait for each other: in a burst of requests the first ones should be under way
while the last ones are still being read."""

Piece: TypeAlias = bytes | memoryview
_NO_BYTES: Final = bytes(4)
_LEFT: Final = (7, 8)  # TCP_CLOSE, TCP_CLOSE_WAIT: of tcp_info, the first byte.


class Buffers:
    """State that the streams of a process share: the receive buffer, its spares, and the round of short messages.
    `read_bytes` is how much one read may take now."""

    __slots__ = ("_spare", "current", "loans", "posters", "read_bytes", "view")

    def __init__(self) -> None:
        self.posters: list[Stream] = []
        self.current = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.current)
        self.read_bytes = BUFFER_BYTES
        self.loans = 0
        self._spare: list[bytearray] = []

    def send_posted(self) -> None:
        """Send what streams posted in this round of the event loop."""
        posters = self.posters
        self.posters = []
        for stream in posters:
            stream.send_posted()

    def lend(self) -> bytearray | None:
        """Give the current buffer away and take another; None when too many are out."""
        if self.loans >= MAX_LOANS:
            return None
        lent = self.current
        self.current = self._spare.pop() if self._spare else bytearray(BUFFER_BYTES)
        self.view = memoryview(self.current)
        self.loans += 1
        if self.loans >= MAX_LOANS:
            self.read_bytes = SMALL_READ_BYTES
        return lent

    def give_back(self, lent: bytearray) -> None:
        self.loans -= 1
        self.read_bytes = BUFFER_BYTES
        if len(self._spare) < 8:
            self._spare.append(lent)


class Stream:
    """One connected (or connecting) socket. Callbacks: `on_readable`, `on_drained` after a `write` that
    returned False, `on_broken` once when writing failed (reading may still give an early answer)."""

    __slots__ = (
        "_buffers",
        "_lent",
        "_loop",
        "_on_readable",
        "_out",
        "_posted",
        "_reading",
        "_writing",
        "broken",
        "closed",
        "fd",
        "on_broken",
        "on_drained",
        "sock",
        "stalled_since",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        buffers: Buffers,
        on_readable: Callable[[], None],
        on_drained: Callable[[], None],
        on_broken: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._buffers = buffers
        self._on_readable = on_readable
        self.on_drained = on_drained
        self.on_broken = on_broken
        self.sock = sock
        self.fd = sock.fileno()
        self._out: list[Piece] = []
        self._posted = b""
        self._lent: bytearray | None = None
        self._reading = False
        self._writing = False
        self.broken = False
        self.closed = False
        self.stalled_since = 0.0
        """Loop time since which unsent bytes have waited without progress; 0: none wait."""

    @property
    def drained(self) -> bool:
        return not self._out

    def has_unread(self) -> bool:
        """Return True if bytes have come that nobody has read yet; the peer's end does not count."""
        with contextlib.suppress(OSError):
            return fcntl.ioctl(self.fd, termios.FIONREAD, _NO_BYTES) != _NO_BYTES
        return False

    def peer_left(self) -> bool:
        """Return True if the peer ended its side, or the connection broke; works also while nothing is read."""
        with contextlib.suppress(OSError):
            return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LEFT
        return False

    def resume_reading(self) -> None:
        if not self._reading and not self.closed:
            self._reading = True
            self._loop.add_reader(self.fd, self._on_readable)

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self.fd)

    def post(self, data: bytes) -> None:
        """Send a short message with those of other streams, once this round of the event loop has read all
        that came.

        Sent one by one between reads, each would wake its peer again, which costs more than all else here. The
        stream counts as drained meanwhile.
        """
        if self.closed or self.broken:
            return
        if self._out:
            self._out.append(data)
        elif self._posted:
            self._posted += data
        else:
            self._posted = data
            buffers = self._buffers
            posters = buffers.posters
            if not posters:
                self._loop.call_soon(buffers.send_posted)
            posters.append(self)
            if len(posters) >= MAX_POSTERS:
                buffers.send_posted()

    def send_posted(self) -> None:
        """Send the posted messages."""
        data = self._posted
        if data:
            self._posted = b""
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._break()
                return
            if sent != len(data):
                self._keep(_after((data,), sent), False)

    def write(self, pieces: Sequence[Piece], *, shared: bool = False) -> bool:
        """Send as much as the kernel takes now and keep the rest. `shared`: the pieces lie in the shared buffer.

        Returns True when nothing is left, or the stream is broken (then the bytes are dropped, and `on_broken`
        follows).
        """
        if self._posted:
            self.send_posted()
        if self.closed or self.broken:
            return True
        if self._out:
            self._out.extend([bytes(piece) for piece in pieces] if shared else pieces)
            return False
        return self._send(pieces, shared)

    def _send(self, pieces: Sequence[Piece], shared: bool) -> bool:
        try:
            if len(pieces) == 1:
                sent = self.sock.send(pieces[0])
                if sent == len(pieces[0]):
                    return True
            else:
                sent = self.sock.sendmsg(pieces if len(pieces) <= MAX_PIECES else pieces[:MAX_PIECES])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._break()
            return True
        kept = _after(pieces, sent)
        if not kept:
            return True
        self._keep(kept, shared)
        return False

    def _keep(self, kept: list[Piece], shared: bool) -> None:
        if shared:
            size = sum(map(len, kept))
            if size <= COPY_BELOW_BYTES or (lent := self._buffers.lend()) is None:
                kept = [b"".join(kept)]
            else:
                self._lent = lent
        self._out = kept
        self.stalled_since = self._loop.time()
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self.fd, self._flush)

    def _flush(self) -> None:
        out = self._out
        try:
            if len(out) == 1:
                sent = self.sock.send(out[0])
            else:
                sent = self.sock.sendmsg(out[:MAX_PIECES])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._break()
            return
        self._out = _after(out, sent)
        if self._out:
            self.stalled_since = self._loop.time()
            return
        self._settle()
        self.on_drained()

    def _settle(self) -> None:
        self._out = []
        self._posted = b""
        self.stalled_since = 0.0
        if self._lent is not None:
            self._buffers.give_back(self._lent)
            self._lent = None
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self.fd)

    def _break(self) -> None:
        self.broken = True
        self._settle()
        # Reported later, never from inside the caller's own write.
        self._loop.call_soon(self._tell_broken)

    def _tell_broken(self) -> None:
        if not self.closed:
            self.on_broken()

    def shut_down_writing(self) -> None:
        self.send_posted()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self, *, abort: bool = False) -> None:
        """Close at once. `abort`: with a reset, so that a peer cannot take the bytes that it got for the whole."""
        if self.closed:
            return
        self.send_posted()
        self.pause_reading()
        self._settle()
        self.closed = True
        if abort:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()
        # The callbacks refer to this stream's owner: such a cycle would stay in memory until the collector comes.
        self._on_readable = self.on_drained = self.on_broken = _nothing


def _nothing() -> None:
    """Called back by a stream that was closed."""


def _after(pieces: Sequence[Piece], sent: int) -> list[Piece]:
    """Return the rest of `pieces` after the first `sent` bytes."""
    for index, piece in enumerate(pieces):
        size = len(piece)
        if sent < size:
            first = memoryview(piece)[sent:] if sent else piece
            return [first, *pieces[index + 1 :]]
        sent -= size
    return []
