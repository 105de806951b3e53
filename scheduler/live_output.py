"""The live output of a running attempt: its bytes as far as they were read, and the followers that wait for more."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from scheduler.errors import SchedulerError

TAIL_BYTES: Final = 65_536
"""The last bytes of an output that nothing stores, for followers that come later."""
JOIN_BYTES: Final = 16_384
"""Pieces smaller than this are joined, so that a tail has few of them, however little its program writes at a time."""


class FellBehind(SchedulerError):
    """The follower reads more slowly than the task's own caller, and the bytes that it missed are no longer held."""


class Written(Protocol):
    """The bytes of an output that were read from its program: a body that is stored, or else a `Tail`."""

    @property
    def size_bytes(self) -> int: ...

    async def read(self, first: int, most: int) -> bytes:
        """See `scheduler.store.contract.BodyWriter.read`."""


class Tail:
    """The last bytes of an output that nothing stores: `TAIL_BYTES`, and `buffer_bytes` while somebody follows."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._pieces: deque[bytes | bytearray] = deque()
        self._held_bytes = 0
        self._keep_bytes = TAIL_BYTES
        self._followers = 0

    def add(self, data: bytes) -> None:
        """The program wrote more. Large pieces are kept as they are, without a copy."""
        pieces = self._pieces
        self.size_bytes += len(data)
        self._held_bytes += len(data)
        last = pieces[-1] if pieces else None
        if isinstance(last, bytearray) and len(last) + len(data) <= JOIN_BYTES:
            last += data
        else:
            pieces.append(bytearray(data) if len(data) < JOIN_BYTES else data)
        while self._held_bytes - len(pieces[0]) >= self._keep_bytes:
            self._held_bytes -= len(pieces.popleft())

    def hold(self, buffer_bytes: int) -> int:
        """A follower comes: keep more from now on. Returns the first byte that it may read."""
        self._followers += 1
        self._keep_bytes = max(TAIL_BYTES, buffer_bytes)
        return max(self.size_bytes - self._held_bytes, self.size_bytes - TAIL_BYTES)

    def let_go(self) -> None:
        """A follower has gone."""
        self._followers -= 1
        if not self._followers:
            self._keep_bytes = TAIL_BYTES

    async def read(self, first: int, most: int) -> bytes:
        """Return some of the bytes from byte `first` on. Raises `FellBehind` where they are no longer held."""
        at = self.size_bytes - self._held_bytes
        if first < at:
            raise FellBehind
        for piece in self._pieces:
            if first < at + len(piece):
                return bytes(piece[first - at : first - at + most])
            at += len(piece)
        return b""


class LiveOutput:
    """One output of an attempt. `over`: nothing more comes, and all of it can be read."""

    __slots__ = ("_waiters", "changes", "over", "tail", "written")

    def __init__(self, written: Written) -> None:
        self.written = written
        self.tail = written if isinstance(written, Tail) else None
        self.over = False
        # Rises with each change, so that a follower notices one that came while it read.
        self.changes = 0
        self._waiters: list[asyncio.Future[None]] = []

    def saw(self, data: bytes) -> None:
        """The program wrote more. A body that is stored has it only when it was written there, see `changed`."""
        if data and self.tail is not None:
            self.tail.add(data)
            self.changed()

    def saw_all(self) -> None:
        """The output is at its end; as `saw`, only where nothing stores it."""
        if self.tail is not None:
            self.end()

    def end(self) -> None:
        """All of it can be read."""
        self.over = True
        self.changed()

    def changed(self) -> None:
        """Wake those who wait for more."""
        self.changes += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def next_change(self, seen: int) -> asyncio.Future[None]:
        """Return what is done as soon as `changes` is above `seen`; one that nobody waits for any more is cancelled."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.changes != seen:
            waiter.set_result(None)
        else:
            self._waiters = [each for each in self._waiters if not each.done()]
            self._waiters.append(waiter)
        return waiter


class LiveOutputs:
    """Both outputs of one attempt. `lost` says why nothing more of them comes, though the attempt did not end well."""

    __slots__ = ("lost", "stderr", "stdout")

    def __init__(self, stdout: Written, stderr: Written) -> None:
        self.stdout = LiveOutput(stdout)
        self.stderr = LiveOutput(stderr)
        self.lost: str | None = None

    def end(self) -> None:
        """The attempt has ended, and all of its output can be read."""
        self.stdout.end()
        self.stderr.end()

    def lose(self, why: str) -> None:
        """The attempt is lost, or another follows."""
        if self.lost is None:
            self.lost = why
            self.stdout.changed()
            self.stderr.changed()
