"""The contract of an executor: run a program in a slot and hand over its bytes. Implemented in `sets.executor`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from scheduler.policy.node import NodeFacts
from scheduler.source import Source
from scheduler.task import Lease


class How(IntEnum):
    """How a program ended."""

    EXITED = 0
    SIGNALLED = 1
    NOT_EXECUTED = 2


class Work(msgspec.Struct, frozen=True):
    """One program to run. `stdin` is the whole standard input, or None: it will be written to `Run.stdin`.

    `prestart`: take the process that waits in the slot, where it was started alike, and start the next one
    after this has ended.
    """

    argv: tuple[bytes, ...]
    env: tuple[bytes, ...] = ()
    stdin: bytes | None = b""
    outputs: tuple[bytes, ...] = ()
    stream: bool = False
    prestart: bool = False


class NoFile(msgspec.Struct, frozen=True):
    """An output path at which no file can be handed over; `errno` says why."""

    errno: int


class Ending(msgspec.Struct):
    """How a program ended, and what it cost. `code` is an exit status, a signal or an errno, as `how` says.

    `lease` is that of its run: an ending that comes late, from another machine, counts for that attempt alone.

    `stdout` and `stderr` hold all the output, unless `handed_over`: then `Run.first` gave it. `files` holds, for each
    output path of the work, the file or why there is none. The receiver calls `close_files`; until then the slot takes
    no other task, since its open files still fill its places and its memory.

    `oom_kills` counts the program's processes that the kernel killed for memory. `memory_peak_kib` is the most that the
    slot's cgroup held while the program ran, 0 where the kernel cannot tell; `max_rss_kib` is that of the largest
    process. `notes` are hints for the caller, each a sentence without its full stop; they join the task's detail.
    """

    lease: Lease
    how: How
    code: int
    killed: bool
    oom_kills: int
    wall_us: int
    cpu_us: int
    max_rss_kib: int
    handed_over: bool
    stdout: bytes
    stderr: bytes
    files: list[Source | NoFile]
    memory_peak_kib: int = 0
    notes: tuple[str, ...] = ()
    prestarted: bool = False
    files_closed: Callable[[], None] | None = None
    """Called once, by `close_files`."""
    frees: bool = False
    """The slot is clean already: `slot_freed` follows as soon as the end has been told."""

    def close_files(self) -> None:
        """Close the output files; closing twice is fine."""
        files, self.files = self.files, []
        for file in files:
            if not isinstance(file, NoFile):
                file.close()
        tell, self.files_closed = self.files_closed, None
        if tell is not None:
            tell()


class ByteReader(Protocol):
    """A pipe's read end."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""

    def close(self) -> None: ...


class ByteWriter(Protocol):
    """A pipe's write end, with the pipe's own back-pressure."""

    async def write(self, data: bytes) -> None:
        """Raises `BrokenPipeError` when the program no longer reads."""

    async def send(self, source: Source) -> None:
        """Feed all of a source, without a copy where that is possible.

        Raises `BrokenPipeError` as `write` does, `SourceUnreadable`, and `OSError`.
        """

    def close(self) -> None: ...


class Output(msgspec.Struct):
    """Output that outgrew one message: first the bytes read already, then the pipes."""

    stdout_head: bytes
    stderr_head: bytes
    stdout: ByteReader
    stderr: ByteReader


class Run(Protocol):
    """A program that runs in a slot."""

    @property
    def lease(self) -> Lease:
        """The attempt that runs."""

    @property
    def stdin(self) -> ByteWriter | None:
        """Where to write the standard input; None when it was in the work."""

    async def first(self) -> Ending | Output:
        """Wait until the output outgrows a message or the program ends. Raises `SlotLost`."""

    def wake(self, waiter: asyncio.Future[None]) -> None:
        """End `waiter` as soon as `first` would not wait."""

    def tell(self, listener: Callable[[Ending | Output | None], None]) -> None:
        """Call `listener` with what `first` returns as soon as it is there; with None, where that raises `SlotLost`.

        It is called amid the slot's own work, before `slot_freed`: it must not raise, nor use the slot.
        """

    async def ending(self) -> Ending:
        """The end. Raises `SlotLost`."""

    def kill(self) -> None:
        """End the whole process tree now; `ending` follows. Once it has ended this does nothing."""

    def show(self) -> None:
        """Have the output handed over now, because somebody follows it; `first` returns it. An executor of an earlier
        build hands it over only when it outgrows a message."""


TOKEN_VARIABLE: Final = "GENERAL_COMPUTE_SLOT_TOKEN"
"""The environment variable in which a slot's guest is given its token; the only name that the platform takes."""


class SlotEvents(Protocol):
    """The events of an executor, called from the event loop."""

    def slot_ready(self, slot_id: str) -> None:
        """The guest said hello."""

    def slot_freed(self, slot_id: str, cpu_us: int) -> None:
        """The task has ended, having used that much CPU time, and the slot is clean: it can take the next."""

    def slot_lost(self, slot_id: str, reason: str) -> None:
        """The slot can no longer be used: its guest is gone, or it misbehaved."""

    def left_over(self, slot_id: str, cpu_us: int) -> None:
        """The slot ends; a program that was started ahead in it used this, microseconds, for no task."""

    def prestart_unfit(self, slot_id: str, reason: str) -> None:
        """A program that was started ahead of its task wrote or ended too early; its image cannot be prestarted."""


class ExecutorEvents(SlotEvents, Protocol):
    """The events of an executor whose slots are on other machines."""

    def node_ready(self, facts: NodeFacts) -> None:
        """The machine takes tasks: a new one, or one that was away or drained."""

    def node_draining(self, node_id: str) -> None:
        """Nothing new may begin on the machine; what runs there goes on."""

    def node_lost(self, node_id: str, reason: str) -> None:
        """The machine is out of reach, and nothing of this set runs there any more."""


class Executor(Protocol):
    async def open(self, events: ExecutorEvents) -> None: ...

    async def close(self) -> None:
        """Tell every guest to exit, and remove what `expect` made. Never raises."""

    async def expect(self, slot_id: str, token: str, node: str) -> None:
        """Let in the guest that says this token in its hello. Its slot is about to be started on `node`.

        `node` is empty where the set has its own machine alone. Raises `OSError`, `EngineUnavailable`.
        """

    def run(self, slot_id: str, work: Work, lease: Lease) -> Run:
        """Start a program in a ready slot, for this attempt.

        Raises `SlotLost`, and `BadRequest` when the work does not fit a message.
        """

    def discard(self, slot_id: str) -> None:
        """Forget a slot, whatever its state; a program that runs in it is lost."""
