"""The slots of one set on an executor's node, as its session sees them: who runs programs there, what is served."""

from __future__ import annotations

from typing import Protocol

from scheduler.execution import ByteReader, Ending, Run, SlotEvents, Work
from scheduler.task import Lease
from sets.executor.link.flow import Inbound, Outbound


class NodeExecutor(Protocol):
    """The executor of one set's slots on this node: `sets.executor.executor.LocalExecutor`."""

    async def open(self, events: SlotEvents) -> None: ...

    async def close(self) -> None: ...

    async def expect(self, slot_id: str, token: str) -> None: ...

    async def leave(self, slot_id: str, file: str, data: bytes) -> None: ...

    def run(self, slot_id: str, work: Work, lease: Lease) -> Run: ...

    def discard(self, slot_id: str) -> None: ...


class Served:
    """A program that runs for the set, or an output file that it reads. `stdin` and `out` are its channels."""

    __slots__ = ("ending", "exit_sent", "files", "freed", "number", "out", "run", "slot_id", "stdin")

    def __init__(self, number: int, slot_id: str = "", run: Run | None = None) -> None:
        self.number = number
        self.slot_id = slot_id
        self.run = run
        self.stdin: Inbound | None = None
        self.out: dict[int, tuple[Outbound, ByteReader | None]] = {}
        self.files: Ending | None = None
        # The end that the set will be told of.
        self.ending: Ending | None = None
        self.exit_sent = False
        # The slot is clean, and the set will be told so together with the end.
        self.freed = False


async def feed(inbound: Inbound, run: Run) -> None:
    """Write a program's input as it arrives; input that breaks off kills the program."""
    stdin = run.stdin
    assert stdin is not None
    try:
        while data := await inbound.read():
            await stdin.write(data)
    except BrokenPipeError:
        # The program no longer reads, or has ended.
        inbound.close()
        return
    if inbound.reason:
        # A program must never take half an input for a whole one.
        run.kill()
    else:
        stdin.close()
