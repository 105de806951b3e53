"""Connections to one set: idle ones kept for the next request, and the count of those in work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from router.wire.addresses import Addresses
from router.wire.dial import Dial
from router.wire.limits import Limits
from router.wire.stream import Buffers
from router.wire.upstream import SetConnection


class SetPool:
    """All connections of this process to one set. `inflight` counts the requests that are there now, except reads and
    waits; `reads` counts those."""

    __slots__ = ("_buffers", "_idle", "_loop", "addresses", "closed", "inflight", "limits", "name", "reads")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        address: tuple[str, int],
        buffers: Buffers,
        limits: Limits,
    ) -> None:
        self._loop = loop
        self.name = name
        self.addresses = Addresses(loop, *address)
        self._buffers = buffers
        self.limits = limits
        self._idle: list[SetConnection] = []
        self.inflight = 0
        self.reads = 0
        self.closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    def enter(self, *, reading: bool) -> None:
        """A request begins at the set, on a connection or before it has one."""
        if reading:
            self.reads += 1
        else:
            self.inflight += 1

    def leave(self, *, reading: bool) -> None:
        """A request that entered is over."""
        if reading:
            self.reads -= 1
        else:
            self.inflight -= 1

    def take(self, *, used_just_now: bool) -> SetConnection | None:
        """The idle connection that was used last, if any.

        `used_just_now`: only one that its set is unlikely to have closed meanwhile, as for a request that must not
        run twice."""
        idle = self._idle
        if not idle:
            return None
        if used_just_now and self._loop.time() - idle[-1].at > self.limits.pool_idle_unsafe_s:
            return None
        return idle.pop()

    def connect(
        self,
        on_connected: Callable[[SetConnection], None],
        on_failed: Callable[[OSError], None],
        refusal: OSError | None = None,
    ) -> Dial:
        """Begin a new connection; one of the callbacks follows, but never from inside this call. `refusal`: fail with
        this instead."""

        def connected(sock: socket.socket) -> None:
            on_connected(SetConnection(self._loop, self, sock, self._buffers, self.limits))

        return Dial(self._loop, self.addresses, self.limits.connect_s, connected, on_failed, refusal)

    def give_back(self, connection: SetConnection) -> None:
        """Keep a connection that is between two messages, or close it if there are enough."""
        if self.closed or len(self._idle) >= self.limits.pool_size:
            connection.close()
            return
        self._idle.append(connection)

    def remove(self, connection: SetConnection) -> None:
        """An idle connection was closed by the set."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long."""
        oldest = now - self.limits.pool_idle_s
        while self._idle and self._idle[0].at < oldest:
            self._idle.pop(0).close()

    def close(self) -> None:
        """Close the idle ones now; those in work close when they end."""
        self.closed = True
        self.addresses.close()
        for connection in self._idle:
            connection.close()
        self._idle.clear()
