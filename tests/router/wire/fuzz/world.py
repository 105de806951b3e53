"""An event loop and sockets that are played: everything happens in the order that the fuzzer wants, at once.

A played socket gives what was put into it, in the pieces that it was put in, and takes only as many bytes as it has
room for. So every split of a message and every full pipe is possible without a kernel.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any


class PlayedSocket:
    """`incoming`: pieces to be read; `room`: how many bytes it takes until it is full."""

    def __init__(self, loop: PlayedLoop) -> None:
        self._loop = loop
        self.fd = loop.next_fd()
        loop.sockets[self.fd] = self
        self.incoming: deque[bytes] = deque()
        self.sent = bytearray()
        self.room = 1 << 30
        self.ended = False
        """The other side will send nothing more."""
        self.closed = False

    def fileno(self) -> int:
        return self.fd

    def recv_into(self, view: memoryview, count: int = 0) -> int:
        assert not self.closed
        if not self.incoming:
            if self.ended:
                return 0
            raise BlockingIOError
        piece = self.incoming.popleft()
        count = min(count or len(view), len(piece))
        view[:count] = piece[:count]
        if count < len(piece):
            self.incoming.appendleft(piece[count:])
        return count

    def send(self, data: bytes | memoryview) -> int:
        assert not self.closed
        count = min(self.room, len(data))
        if not count:
            raise BlockingIOError
        self.sent += data[:count]
        self.room -= count
        return count

    def sendmsg(self, pieces: list[bytes | memoryview]) -> int:
        return self.send(b"".join(pieces))

    def connect_ex(self, _address: object) -> int:
        return errno.EINPROGRESS

    def getsockopt(self, *_: object) -> int:
        return 0

    def setsockopt(self, *_: object) -> None:
        pass

    def setblocking(self, _: bool) -> None:
        pass

    def shutdown(self, _: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        del self._loop.sockets[self.fd]


class _Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class PlayedLoop:
    """The part of an event loop that the data plane uses. Time passes only by `now`."""

    def __init__(self) -> None:
        self.now = 1.0
        self.sockets: dict[int, PlayedSocket] = {}
        self._fds = 100
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._timers: list[tuple[_Handle, Callable[..., None], tuple[Any, ...]]] = []

    def next_fd(self) -> int:
        self._fds += 1
        return self._fds

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        self._readers.pop(fd, None)

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self._writers[fd] = callback

    def remove_writer(self, fd: int) -> None:
        self._writers.pop(fd, None)

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._soon.append((callback, arguments))

    def call_later(self, _delay: float, callback: Callable[..., None], *arguments: Any) -> _Handle:
        handle = _Handle()
        self._timers.append((handle, callback, arguments))
        return handle

    def round(self) -> bool:
        """Call whatever is ready once; False: nothing was."""
        soon, self._soon = self._soon, []
        for callback, arguments in soon:
            callback(*arguments)
        ready = bool(soon)
        for fd, sock in list(self.sockets.items()):
            if (sock.incoming or sock.ended) and (reader := self._readers.get(fd)):
                reader()
                ready = True
            if fd in self.sockets and sock.room and (writer := self._writers.get(fd)):
                writer()
                ready = True
        return ready

    def settle(self) -> None:
        """Go on until nothing is ready; bounded, as a loop without end would be a finding."""
        for _ in range(100_000):
            if not self.round():
                return
        busy = [sock for sock in self.sockets.values() if sock.incoming or sock.ended]
        raise AssertionError(f"the event loop does not come to rest: {self._readers} {busy}")

    def fire_timers(self) -> bool:
        """Let every timer's time come; False: there was none."""
        timers = [timer for timer in self._timers if not timer[0].cancelled]
        self._timers = []
        for handle, callback, arguments in timers:
            if not handle.cancelled:
                callback(*arguments)
        return bool(timers)
