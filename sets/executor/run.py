"""A program that runs in a slot, as its caller sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from scheduler.errors import SlotLost
from scheduler.execution import ByteReader, ByteWriter, Ending, Output
from scheduler.task import Lease


class Place(Protocol):
    """The parts of a slot that a run uses."""

    loop: asyncio.AbstractEventLoop

    def kill(self, run: SlotRun) -> None: ...

    def show(self, run: SlotRun) -> None: ...


class OutputReader(ByteReader, Protocol):
    """A program's output, which `complete` tells that the program has ended."""

    def complete(self) -> None: ...


class SlotRun:
    """A program that runs in a slot (`scheduler.execution.Run`).

    A coroutine that waits may be cancelled (its client goes away) without harm to the others, and may ask again: the
    run keeps what came. Files that were not fetched are closed when the run is dropped.
    """

    __slots__ = (
        "_end",
        "_fetched",
        "_first_waiter",
        "_listener",
        "_lost",
        "_output",
        "_pipes",
        "_slot",
        "_waiters",
        "file_count",
        "kill_sent",
        "lease",
        "number",
        "shown",
        "stdin",
    )

    def __init__(
        self, slot: Place, number: int, lease: Lease, stdin: ByteWriter | None, file_count: int
    ) -> None:
        self._slot = slot
        self.lease = lease
        self.number = number
        self.stdin = stdin
        self.file_count = file_count
        self.kill_sent = False
        # Its output was asked for before it outgrew a message.
        self.shown = False
        self._output: Output | None = None
        self._pipes: tuple[OutputReader, ...] = ()
        self._end: Ending | None = None
        self._fetched = False
        self._lost: str | None = None
        self._first_waiter: asyncio.Future[None] | None = None
        self._listener: Callable[[Ending | Output | None], None] | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def handed_over(self) -> bool:
        return self._output is not None

    async def first(self) -> Ending | Output:
        while self._output is None:
            if self._end is not None or self._lost is not None:
                return self._ending()
            await self._news()
        return self._output

    def wake(self, waiter: asyncio.Future[None]) -> None:
        if self._output is not None or self._end is not None or self._lost is not None:
            waiter.set_result(None)
        else:
            self._first_waiter = waiter

    def tell(self, listener: Callable[[Ending | Output | None], None]) -> None:
        self._listener = listener
        if self._output is not None or self._end is not None or self._lost is not None:
            self._tell_listener()

    async def ending(self) -> Ending:
        while self._end is None and self._lost is None:
            await self._news()
        return self._ending()

    def kill(self) -> None:
        self._slot.kill(self)

    def show(self) -> None:
        if not self.shown and not self.handed_over and self._end is None and self._lost is None:
            self.shown = True
            self._slot.show(self)

    def _ending(self) -> Ending:
        if self._end is None:
            raise SlotLost(f"the slot was lost while the task ran: {self._lost}")
        self._fetched = True
        return self._end

    async def _news(self) -> None:
        # A future each: a cancelled waiter takes its future along.
        waiter = self._slot.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    # -- called by the slot

    def output_came(
        self, stdout_head: bytes, stderr_head: bytes, stdout: OutputReader, stderr: OutputReader
    ) -> None:
        self._pipes = (stdout, stderr)
        self._output = Output(stdout_head, stderr_head, stdout, stderr)
        self._tell()

    def end_came(self, ending: Ending) -> None:
        self._end = ending
        self._close()

    def lost(self, reason: str) -> None:
        self._lost = reason
        self._close()

    def _close(self) -> None:
        if self.stdin is not None:
            self.stdin.close()
        for pipe in self._pipes:
            pipe.complete()
        self._tell()

    def _tell(self) -> None:
        first, self._first_waiter = self._first_waiter, None
        if first is not None and not first.done():
            first.set_result(None)
        if self._listener is not None:
            self._tell_listener()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _tell_listener(self) -> None:
        listener, self._listener = self._listener, None
        assert listener is not None
        if self._output is None and self._end is not None:
            self._fetched = True
        listener(self._output or self._end)

    def __del__(self) -> None:
        if self._end is not None and not self._fetched:
            self._end.close_files()
