"""One slot as its executor sees it: the guest's connection, the task that runs, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from scheduler.errors import IllegalMove, SlotLost
from scheduler.execution import NoFile, Work
from scheduler.source import Source
from scheduler.task import Lease
from sets.executor import protocol
from sets.executor.cgroup import CgroupError, CpuAccount, SlotCgroup
from sets.executor.ending import ending_of
from sets.executor.guest_socket import GuestGone, GuestSocket
from sets.executor.output_file import OutputFile
from sets.executor.pipes import PIPE_BYTES, PipeReader
from sets.executor.protocol import (
    CleanedMessage,
    ExitMessage,
    OutputMessage,
    ProtocolError,
    UnfitMessage,
)
from sets.executor.run import SlotRun
from sets.executor.slot_state import SLOT_MOVES, SlotState
from sets.executor.task_pipes import TaskPipes

log = structlog.get_logger()

KILL_GRACE_S: Final = 5.0
"""Longest time, in seconds, from KILL to the report of the end; then the slot is destroyed."""
CLEAN_GRACE_S: Final = 60.0
"""Longest time, in seconds, that a guest may take to empty the writable places."""
FILES_GRACE_S: Final = 900.0
"""Longest time, in seconds, to read output files: they fill the slot, so it takes no other task meanwhile."""
BUDGET_CHECK_S: Final = 5.0
PRESTART_BUDGET_US: Final = 20_000_000
"""CPU time that a program may use before its input comes, looked at every `BUDGET_CHECK_S`."""
NO_LEASE: Final = Lease("", 0)
"""The lease of a program that runs for no task."""


class Slot:
    """The executor's end of one guest's connection.

    `freed` is called with a task's CPU time, microseconds, when it has ended and the slot is clean, `lost` when the
    slot can no longer be used, `unfit` when a program that waited for its task misbehaved, `left_over` with the CPU
    time, microseconds, of one that waited in vain.
    """

    def __init__(
        self,
        slot_id: str,
        loop: asyncio.AbstractEventLoop,
        buffer: memoryview,
        freed: Callable[[str, int], None],
        lost: Callable[[str, str], None],
        unfit: Callable[[str, str], None] = lambda _slot_id, _reason: None,
        left_over: Callable[[str, int], None] = lambda _slot_id, _cpu_us: None,
    ) -> None:
        self.id = slot_id
        self.loop = loop
        self.state = SlotState.CONNECTING
        self._buffer = buffer
        self._freed = freed
        # CPU time of the last task, microseconds.
        self._lost = lost
        self._unfit = unfit
        self._left_over = left_over
        self._prestart = False
        self._budget: asyncio.TimerHandle | None = None
        self._socket: GuestSocket | None = None
        self._cgroup: SlotCgroup | None = None
        self._account = CpuAccount(0)
        self._run: SlotRun | None = None
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        # Pipes that went with the task; whether the last one needed some.
        self._outputs: tuple[PipeReader, PipeReader] | None = None
        self._outgrew = False
        # The guest holds the last task's files until they are released, and cleans up only then.
        self._files_open = False

    def _move(self, state: SlotState) -> None:
        if state not in SLOT_MOVES[self.state]:
            raise IllegalMove(f"slot {self.id}: {self.state} → {state} is not a legal move")
        self.state = state

    def connected(self, connection: socket.socket, pid: int) -> None:
        """The guest, process `pid`, has proved itself. Raises `CgroupError`, `OSError`: `connection` stays open."""
        guest = GuestSocket(connection, self._buffer)
        self._cgroup = SlotCgroup(pid)
        self._account = CpuAccount(self._cgroup.cpu_us())
        self._socket = guest
        self._move(SlotState.IDLE)
        self.loop.add_reader(guest.fileno(), self._readable)

    def run(self, work: Work, lease: Lease = NO_LEASE) -> SlotRun:
        """Start a program. Raises `SlotLost` when the guest does not take it, `BadRequest` when it fits no message."""
        connection = self._socket
        if self.state is not SlotState.IDLE or connection is None:
            raise SlotLost(f"slot {self.id} is {self.state}")
        assert self._cgroup is not None
        number = self._number + 1
        # Outputs that will hardly fit a message go from the program straight to us.
        output_fds = work.stdin is None or work.stream or self._outgrew
        message = protocol.encode_task(number, work, output_fds=output_fds)
        self._cgroup.begin_task()
        pipes: TaskPipes | None = None
        try:
            if output_fds:
                pipes = TaskPipes(self.loop, stdin=work.stdin is None, to_read=True)
                connection.send(message, pipes.fds)
                pipes.sent()
            else:
                connection.send(message)
        except OSError as error:
            # This includes a full socket: a guest that waits for a task has read everything before it.
            if pipes is not None:
                pipes.close()
            reason = f"its guest could not be given a task: {error}"
            self.fail(reason)
            raise SlotLost(f"slot {self.id} is lost: {reason}") from error
        self._outputs = None if pipes is None else pipes.outputs
        self._number = number
        self._move(SlotState.RUNNING)
        self._forget_budget()
        self._prestart = work.prestart
        stdin = None if pipes is None else pipes.stdin
        run = self._run = SlotRun(self, number, lease, stdin, len(work.outputs))
        return run

    def kill(self, run: SlotRun) -> None:
        """End the run's process tree, if it still runs."""
        if self._run is not run or self._socket is None or run.kill_sent:
            return
        run.kill_sent = True
        try:
            self._socket.send(protocol.encode_kill(run.number))
        except OSError as error:
            self.fail(f"its guest does not take KILL: {error}")
            return
        self._watch(KILL_GRACE_S, "its guest did not end a killed task in time")

    def show(self, run: SlotRun) -> None:
        """Have the outputs of the program that runs handed over now."""
        with contextlib.suppress(OSError):
            self._tell(protocol.encode_show(run.number))

    def retire(self) -> None:
        """Tell the guest to exit, and forget the slot."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(protocol.encode_retire())
        self._end("the slot was retired")

    def fail(self, reason: str) -> None:
        """The slot can no longer be used."""
        if self.state is SlotState.LOST:
            return
        self._end(reason)
        self._lost(self.id, reason)

    def _end(self, reason: str) -> None:
        if self.state is SlotState.LOST:
            return
        idle = self.state in (SlotState.IDLE, SlotState.CLEANING)
        self._move(SlotState.LOST)
        self._files_open = False
        self._unwatch()
        self._forget_budget()
        if idle:
            self._tell_left_over()
        if self._socket is not None:
            self.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._cgroup is not None:
            self._cgroup.close()
        self._close_outputs()
        run, self._run = self._run, None
        if run is not None:
            run.lost(reason)

    def _close_outputs(self) -> None:
        """Close the pipes of a task that has ended without a need for them."""
        outputs, self._outputs = self._outputs, None
        for pipe in outputs or ():
            pipe.close()

    def _tell_left_over(self) -> None:
        # A slot whose container has died has no account any more.
        if self._cgroup is not None:
            with contextlib.suppress(CgroupError):
                if left_us := self._account.left_over(self._cgroup.cpu_us(), waited=self._prestart):
                    self._left_over(self.id, left_us)

    # -- from the guest

    def _readable(self) -> None:
        """Take one message."""
        connection = self._socket
        if connection is None:
            return
        free = False
        try:
            message = connection.receive()
            if message is not None:
                free = self._message(message)
        except GuestGone:
            self.fail("its guest is gone")
        except OSError as error:
            self.fail(f"its guest's connection broke: {error}")
        except (ProtocolError, CgroupError) as error:
            log.warning("slot misbehaved", slot=self.id, error=str(error))
            self.fail(f"it misbehaved: {error}")
        if free:
            self._freed(self.id, self._account.spent_us)
            if self._prestart and self.state is SlotState.IDLE and self._cgroup is not None:
                self._cgroup.yield_cpu()

    def _message(self, message: protocol.Message) -> bool:
        """Act on one message. True: the slot is free from here on."""
        if isinstance(message, ExitMessage):
            return self._exited(message)
        if isinstance(message, OutputMessage):
            self._output(message)
            return False
        if isinstance(message, CleanedMessage):
            return self._cleaned(message)
        if isinstance(message, UnfitMessage):
            assert self._cgroup is not None
            killed = self._cgroup.killed_between_tasks()
            reason = "the kernel killed it for memory" if killed else "it wrote or ended"
            self._unfit(self.id, f"{reason} before its input came")
            return False
        raise ProtocolError("a second HELLO")

    def _output(self, message: OutputMessage) -> None:
        run = self._current(message.task)
        if run.handed_over:
            raise ProtocolError("a second OUTPUT")
        outputs, self._outputs = self._outputs, None
        if outputs is None:
            pipes = TaskPipes(self.loop)
            try:
                self._tell(protocol.encode_pipes(run.number), pipes.fds)
            finally:
                pipes.sent()
            outputs = pipes.outputs
        assert outputs is not None
        run.output_came(message.stdout, message.stderr, *outputs)

    def _exited(self, message: ExitMessage) -> bool:
        run = self._current(message.task)
        has_files = bool(message.files) and max(message.files) >= 0
        if message.handed_over != run.handed_over or len(message.files) != run.file_count:
            raise ProtocolError("an EXIT that contradicts what was before it")
        if has_files and not message.cleaning:
            raise ProtocolError("an EXIT of a slot that is clean and holds files")
        if message.how == protocol.NOT_STARTED:
            # Nothing of the task ran, and the next one would probably fail here in the same way.
            self.fail(f"its guest could not start a program: {os.strerror(message.code)}")
            return False
        assert self._cgroup is not None
        cpu_us = self._account.bill(self._cgroup.cpu_us(), message.guest_cpu_us)
        memory = self._cgroup.end_task(prestarted=message.prestarted)
        files: list[Source | NoFile] = [
            OutputFile(size, partial(self._read_file, run.number, at), _broken_file)
            if size >= 0
            else NoFile(-size)
            for at, size in enumerate(message.files)
        ]
        self._files_open = has_files
        # The garbage collector may close them, in any thread.
        files_closed = partial(self._call_soon, self._release) if has_files else None
        ending = ending_of(message, run.lease, cpu_us, memory, files, files_closed)
        self._run = None
        self._outgrew = message.handed_over and not run.shown
        self._close_outputs()
        self._unwatch()
        if self._prestart:
            self._budget = self.loop.call_later(BUDGET_CHECK_S, self._check_budget)
        run.end_came(ending)
        if not message.cleaning:
            self._move(SlotState.IDLE)
            return True
        self._move(SlotState.CLEANING)
        if has_files:
            self._watch(FILES_GRACE_S, "its output files were not closed in time")
        else:
            self._watch_cleaning()
        return False

    def _cleaned(self, message: CleanedMessage) -> bool:
        if self.state is not SlotState.CLEANING or self._files_open or message.task != self._number:
            raise ProtocolError("a CLEANED out of order")
        if not message.ok:
            raise ProtocolError(f"it could not be cleaned: {os.strerror(message.error)}")
        self._account.guest_used(message.guest_cpu_us)
        self._unwatch()
        self._move(SlotState.IDLE)
        return True

    # -- output files

    def _read_file(self, task: int, number: int, first: int, length: int) -> PipeReader:
        """Have the guest write `length` bytes of the task's file, from byte `first` on. Raises `SlotLost`."""
        if not self._files_open or task != self._number:
            raise SlotLost(f"slot {self.id} holds no files of that task any more")
        try:
            pipes = TaskPipes(self.loop, outputs=False)
            try:
                reader = pipes.output(PIPE_BYTES)
                self._tell(protocol.encode_read(task, number, first, length), pipes.fds)
            finally:
                pipes.sent()
        except OSError as error:
            raise SlotLost(f"slot {self.id} cannot be asked for an output file: {error}") from error
        return reader

    def _release(self) -> None:
        """Nobody reads the files any more: the guest may clean up."""
        if not self._files_open:
            return
        self._files_open = False
        self._unwatch()
        self._watch_cleaning()
        try:
            self._tell(protocol.encode_release(self._number))
        except OSError as error:
            self.fail(f"its guest does not take RELEASE: {error}")

    def _watch_cleaning(self) -> None:
        self._watch(CLEAN_GRACE_S, "its guest did not clean up in time")

    def _tell(self, message: bytes, fds: Sequence[int] = ()) -> None:
        if self._socket is None:
            raise BrokenPipeError("its guest is gone")
        self._socket.send(message, fds)

    def _call_soon(self, what: Callable[[], None]) -> None:
        # After the loop has ended, no slot is left to tell.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(what)

    def _current(self, number: int) -> SlotRun:
        if self._run is None or number != self._run.number:
            raise ProtocolError(f"a message about task {number}, which does not run")
        return self._run

    # -- the program that waits for the next task

    def _check_budget(self) -> None:
        """Check the CPU time of a prestarted program, which may only load: above its budget, end it and its slot."""
        self._budget = None
        if self.state is SlotState.CLEANING:
            self._budget = self.loop.call_later(BUDGET_CHECK_S, self._check_budget)
            return
        if self.state is not SlotState.IDLE or self._cgroup is None:
            return
        try:
            used_us = self._account.unbilled(self._cgroup.cpu_us())
        except CgroupError as error:
            self.fail(str(error))
            return
        if used_us > PRESTART_BUDGET_US:
            self._unfit(self.id, f"it used {used_us / 1e6:.1f} s of CPU time before its input came")
            self.fail("its waiting program used more CPU time than its budget")
            return
        self._budget = self.loop.call_later(BUDGET_CHECK_S, self._check_budget)

    def _forget_budget(self) -> None:
        if self._budget is not None:
            self._budget.cancel()
            self._budget = None

    # -- time limits on the guest itself

    def _watch(self, delay_s: float, reason: str) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(delay_s, self.fail, reason)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _broken_file(_: PipeReader) -> SlotLost:
    return SlotLost("an output file broke off while it was read")
