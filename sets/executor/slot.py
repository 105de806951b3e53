"""One slot as its executor sees it: the guest's connection, the task that runs, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import structlog

from scheduler.errors import IllegalMove, SlotLost
from scheduler.execution import Ending, How, Output, Work
from sets.executor import protocol
from sets.executor.cgroup import CgroupError, SlotCgroup
from sets.executor.pipes import PipeReader, PipeWriter
from sets.executor.protocol import CleanedMessage, ExitMessage, OutputMessage, ProtocolError

log = structlog.get_logger()

KILL_GRACE_S: Final = 5.0
"""A guest that has not reported the end this long after KILL is destroyed with its slot."""
CLEAN_GRACE_S: Final = 60.0
"""A guest may take this long to empty the writable places."""


class SlotState(StrEnum):
    CONNECTING = "connecting"
    IDLE = "idle"
    RUNNING = "running"
    CLEANING = "cleaning"
    LOST = "lost"


SLOT_MOVES: Final[dict[SlotState, frozenset[SlotState]]] = {
    SlotState.CONNECTING: frozenset({SlotState.IDLE, SlotState.LOST}),
    SlotState.IDLE: frozenset({SlotState.RUNNING, SlotState.LOST}),
    SlotState.RUNNING: frozenset({SlotState.IDLE, SlotState.CLEANING, SlotState.LOST}),
    SlotState.CLEANING: frozenset({SlotState.IDLE, SlotState.LOST}),
    SlotState.LOST: frozenset(),
}


class SlotRun:
    """A program that runs in a slot (`scheduler.execution.Run`).

    Whoever waits may be cancelled (a client that goes away) without harm to the others: what came is kept.
    """

    __slots__ = ("_end", "_ended", "_first", "_slot", "handed_over", "number", "stdin")

    def __init__(self, slot: Slot, number: int, stdin: PipeWriter | None) -> None:
        self._slot = slot
        self.number = number
        self.stdin = stdin
        self.handed_over = False
        self._end: Ending | SlotLost | None = None
        self._first: asyncio.Future[Ending | Output] = slot.loop.create_future()
        self._ended: asyncio.Future[None] | None = None

    async def first(self) -> Ending | Output:
        return await self._first

    async def ending(self) -> Ending:
        while self._end is None:
            if self._ended is None or self._ended.done():
                self._ended = self._slot.loop.create_future()
            await self._ended
        if isinstance(self._end, SlotLost):
            raise self._end
        return self._end

    def kill(self) -> None:
        self._slot.kill(self)

    # -- called by the slot

    def output_came(self, output: Output) -> None:
        self.handed_over = True
        if self._first.done():
            output.stdout.close()
            output.stderr.close()
        else:
            self._first.set_result(output)

    def end_came(self, ending: Ending) -> None:
        self._end = ending
        if not self._first.done():
            self._first.set_result(ending)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def lost(self, reason: str) -> None:
        self._end = SlotLost(f"the slot was lost while the task ran: {reason}")
        if not self._first.done():
            self._first.set_exception(self._end)
            # Whoever gave the run up meanwhile will not fetch it.
            self._first.exception()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if self.stdin is not None:
            self.stdin.close()


class Slot:
    """The executor's end of one guest's connection.

    `freed` is called when a task has ended and the slot is clean, `lost` when the slot is of no more use.
    """

    def __init__(
        self,
        slot_id: str,
        loop: asyncio.AbstractEventLoop,
        buffer: memoryview,
        freed: Callable[[str], None],
        lost: Callable[[str, str], None],
    ) -> None:
        self.id = slot_id
        self.loop = loop
        self.state = SlotState.CONNECTING
        self._buffer = buffer
        self._freed = freed
        self._lost = lost
        self._socket: socket.socket | None = None
        self._cgroup: SlotCgroup | None = None
        self._cpu_us = 0
        self._run: SlotRun | None = None
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def _move(self, state: SlotState) -> None:
        if state not in SLOT_MOVES[self.state]:
            raise IllegalMove(f"slot {self.id}: {self.state} → {state} is not a legal move")
        self.state = state

    def connected(self, connection: socket.socket, pid: int) -> None:
        """The guest, process `pid`, has proved itself."""
        self._cgroup = SlotCgroup(pid)
        self._cpu_us = self._cgroup.cpu_us()
        self._socket = connection
        self._move(SlotState.IDLE)
        self.loop.add_reader(connection.fileno(), self._readable)

    def run(self, work: Work) -> SlotRun:
        """Start a program. Raises `SlotLost` when the guest does not take it, `BadRequest` when it fits no message."""
        connection = self._socket
        if self.state is not SlotState.IDLE or connection is None:
            raise SlotLost(f"slot {self.id} is {self.state}")
        number = self._number + 1
        message = protocol.encode_task(number, work)
        stdin: PipeWriter | None = None
        try:
            if work.stdin is None:
                read_fd, write_fd = os.pipe()
                stdin = PipeWriter(self.loop, write_fd)
                try:
                    socket.send_fds(connection, [message], [read_fd])
                finally:
                    os.close(read_fd)
            else:
                connection.send(message)
        except OSError as error:
            if stdin is not None:
                stdin.close()
            self.fail(f"its guest does not take a task: {error}")
            raise SlotLost(f"the slot's guest does not take a task: {error}") from error
        self._number = number
        self._move(SlotState.RUNNING)
        run = self._run = SlotRun(self, number, stdin)
        return run

    def kill(self, run: SlotRun) -> None:
        """End the run's process tree, if it still runs."""
        if self._run is not run or self.state is not SlotState.RUNNING or self._socket is None:
            return
        try:
            self._socket.send(protocol.encode_kill(run.number))
        except OSError as error:
            self.fail(f"its guest does not take KILL: {error}")
            return
        self._watch(KILL_GRACE_S, "its guest did not end a killed task in time")

    def retire(self) -> None:
        """Tell the guest to exit, and forget the slot."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(protocol.encode_retire())
        self._end("the slot was retired")

    def fail(self, reason: str) -> None:
        """The slot is of no more use."""
        if self.state is SlotState.LOST:
            return
        self._end(reason)
        self._lost(self.id, reason)

    def _end(self, reason: str) -> None:
        if self.state is SlotState.LOST:
            return
        self._move(SlotState.LOST)
        self._unwatch()
        if self._socket is not None:
            self.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._cgroup is not None:
            self._cgroup.close()
        run, self._run = self._run, None
        if run is not None:
            run.lost(reason)

    # -- from the guest

    def _readable(self) -> None:
        connection = self._socket
        if connection is None:
            return
        fds: list[int] = []
        try:
            size, ancillary, flags, _ = connection.recvmsg_into(
                [self._buffer], socket.CMSG_SPACE(4 * protocol.FILES_COUNT), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds += memoryview(data[: len(data) // 4 * 4]).cast("i").tolist()
            if not size:
                self.fail("its guest is gone")
                return
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ProtocolError("a message that is too long")
            self._message(protocol.decode(self._buffer[:size]), fds)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(f"its guest's connection broke: {error}")
        except (ProtocolError, CgroupError, IllegalMove) as error:
            log.warning("slot misbehaved", slot=self.id, error=str(error))
            self.fail(f"it misbehaved: {error}")
        finally:
            for fd in fds:
                os.close(fd)

    def _message(self, message: protocol.Message, fds: list[int]) -> None:
        """Act on one message; descriptors that it takes over leave `fds`."""
        if isinstance(message, ExitMessage):
            self._exited(message, fds)
        elif isinstance(message, OutputMessage):
            run = self._current(message.task)
            if run.handed_over or len(fds) != 2:
                raise ProtocolError("an OUTPUT out of order")
            stdout, stderr = PipeReader(self.loop, fds[0]), PipeReader(self.loop, fds[1])
            fds.clear()
            run.output_came(Output(message.stdout, message.stderr, stdout, stderr))
        elif isinstance(message, CleanedMessage):
            if self.state is not SlotState.CLEANING or message.task != self._number:
                raise ProtocolError("a CLEANED out of order")
            if not message.ok:
                raise ProtocolError(f"it could not be cleaned: {os.strerror(message.error)}")
            self._free()
        else:
            raise ProtocolError("a second HELLO")

    def _exited(self, message: ExitMessage, fds: list[int]) -> None:
        run = self._current(message.task)
        if message.handed_over != run.handed_over or len(fds) != message.file_errnos.count(0):
            raise ProtocolError("an EXIT that contradicts itself")
        assert self._cgroup is not None
        before, self._cpu_us = self._cpu_us, self._cgroup.cpu_us()
        opened = iter(fds)
        files = [-errno if errno else next(opened) for errno in message.file_errnos]
        fds.clear()
        killed_by_kernel = message.how == How.SIGNALLED and message.code == 9 and not message.killed
        ending = Ending(
            how=How(message.how),
            code=message.code,
            killed=message.killed,
            # A program may survive the killing of one of its children and fail by itself: that counts, too.
            out_of_memory=(killed_by_kernel or bool(message.code)) and self._cgroup.out_of_memory_since(),
            wall_us=message.wall_us,
            cpu_us=max(0, self._cpu_us - before - message.guest_cpu_us),
            max_rss_kib=message.max_rss_kib,
            handed_over=message.handed_over,
            stdout=message.stdout,
            stderr=message.stderr,
            files=files,
        )
        self._run = None
        self._unwatch()
        if run.stdin is not None:
            run.stdin.close()
        run.end_came(ending)
        if message.cleaning:
            self._move(SlotState.CLEANING)
            self._watch(CLEAN_GRACE_S, "its guest did not clean up in time")
        else:
            self._free()

    def _current(self, number: int) -> SlotRun:
        if self._run is None or number != self._run.number:
            raise ProtocolError(f"a message about task {number}, which does not run")
        return self._run

    def _free(self) -> None:
        self._unwatch()
        self._move(SlotState.IDLE)
        self._freed(self.id)

    # -- time limits on the guest itself

    def _watch(self, delay_s: float, reason: str) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(delay_s, self.fail, reason)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
