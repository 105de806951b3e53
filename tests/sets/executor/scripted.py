"""A guest that does as the test says, on the other end of a slot's connection."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

from scheduler.execution import Work
from sets.executor.protocol import MESSAGE_BYTES
from sets.executor.run import SlotRun
from sets.executor.slot import Slot
from tests.sets.executor import wire

WAIT_S = 60.0
CAT = Work(argv=(b"/bin/cat",), stdin=b"in")


class ScriptedGuest:
    """Its end of a SEQPACKET connection; blocking, but nothing that a test does here can block for long."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(WAIT_S)
        # The write ends of pipes that came with the last task.
        self.outputs: list[int] = []

    def read(self) -> tuple[bytes, list[int]]:
        message, fds, _, _ = socket.recv_fds(self.socket, MESSAGE_BYTES, 64)
        return message, list(fds)

    def takes(self) -> wire.ReadTask:
        """The TASK that must come now, and its pipes: only those for outputs are kept."""
        message, fds = self.read()
        task = wire.read_task(message)
        assert len(fds) == bool(task.flags & wire.STDIN_FD) + (4 if task.flags & wire.OUTPUT_FDS else 0)
        self.drop_outputs()
        if task.flags & wire.OUTPUT_FDS:
            *others, read_end, stdout, read_end_2, stderr = fds
            self.outputs = [stdout, stderr]
            fds = [*others, read_end, read_end_2]
        for fd in fds:
            os.close(fd)
        return task

    def drop_outputs(self) -> None:
        for fd in self.outputs:
            os.close(fd)
        self.outputs = []

    def task(self) -> wire.ReadTask:
        message, fds = self.read()
        assert not fds
        return wire.read_task(message)

    def says(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send; the descriptors are the executor's from here on."""
        socket.send_fds(self.socket, [message], list(fds))
        for fd in fds:
            os.close(fd)

    async def hands_over(self, task: int, stdout: bytes = b"", stderr: bytes = b"") -> tuple[int, int]:
        """OUTPUT; the two pipes that came with the task, or that the executor answers with."""
        self.says(wire.output(task, stdout, stderr))
        if self.outputs:
            given, self.outputs = self.outputs, []
            return given[0], given[1]
        message, fds = await self.hears()
        assert message == wire.head(wire.PIPES, task)
        assert len(fds) == 2
        return fds[0], fds[1]

    async def hears(self) -> tuple[bytes, list[int]]:
        """The next message, while the executor's loop goes on."""
        return await asyncio.to_thread(self.read)

    async def gives(self, data: bytes, asked: wire.AskedFor) -> None:
        """Answer the READ that must come next with these bytes."""
        message, (pipe,) = await self.hears()
        assert wire.read_read(message) == asked
        # Little enough for a pipe.
        assert os.write(pipe, data) == len(data)
        os.close(pipe)

    async def is_released(self, task: int) -> None:
        """The files are no longer wanted: the guest has cleaned up."""
        assert await self.hears() == (wire.head(wire.RELEASE, task), [])
        self.says(wire.cleaned(task))

    def close(self) -> None:
        self.socket.close()


def pipe_ends(count: int) -> list[int]:
    """Read ends; nobody holds the write ends."""
    ends = []
    for _ in range(count):
        read_end, write_end = os.pipe()
        os.close(write_end)
        ends.append(read_end)
    return ends


def null(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]


class Rig:
    """A slot whose guest is scripted, and what it told its owner."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.freed = 0
        self.lost: list[str] = []
        self.slot = Slot("s", self.loop, memoryview(bytearray(MESSAGE_BYTES)), self._freed, self._lost)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.guest = ScriptedGuest(theirs)
        self._connection = ours

    def connect(self) -> Rig:
        self.slot.connected(self._connection, os.getpid())
        return self

    def run(self, work: Work = CAT) -> SlotRun:
        """Start; the scripted guest has read its TASK when this returns."""
        run = self.slot.run(work)
        self.guest.takes()
        return run

    async def settle(self) -> None:
        """Let the loop look at its descriptors and run what is ready."""
        # What a test has sent is there: every turn of the loop sees it.
        for _ in range(6):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.slot.retire()
        self._connection.close()
        self.guest.drop_outputs()
        self.guest.close()

    def _freed(self, slot_id: str, cpu_us: int) -> None:
        assert slot_id == "s"
        self.freed += 1

    def _lost(self, slot_id: str, reason: str) -> None:
        assert slot_id == "s"
        self.lost.append(reason)
