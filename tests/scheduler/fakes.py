"""An executor and a launcher in memory: slots that are ready at once, programs that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from scheduler.errors import ImageUnknown, SchedulerError, SlotLost
from scheduler.execution import ByteReader, Ending, How, NoFile, Output, SlotEvents, Work
from scheduler.image import Image
from scheduler.images.reference import parse_reference
from scheduler.launchers.contract import SlotOrder
from scheduler.source import Source, SourceUnreadable

CAT = Image("cat:1", "sha256:" + "c" * 64, "sha256:" + "c" * 64, entrypoint=("/cat",))


class Pipe:
    """Both ends of a pipe of a program."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.closed = False
        self.ended = False
        self._changed = asyncio.Event()

    def feed(self, data: bytes = b"", *, end: bool = False) -> None:
        self.data += data
        self.ended = self.ended or end
        self._changed.set()

    async def read(self) -> bytes:
        while not (self.data or self.ended or self.closed):
            self._changed.clear()
            await self._changed.wait()
        data, self.data = bytes(self.data), bytearray()
        return b"" if self.closed else data

    async def write(self, data: bytes) -> None:
        if self.closed:
            raise BrokenPipeError
        self.feed(data)

    async def send(self, source: Source) -> None:
        async for piece in source.pieces():
            await self.write(piece)

    def close(self) -> None:
        self.closed = True
        self._changed.set()


class Elsewhere:
    """A `Source` without a descriptor: its bytes come over a link, in pieces, which may break."""

    def __init__(self, data: bytes, *, breaks_at: int | None = None) -> None:
        self.data = data
        self.size_bytes = len(data)
        self.closed = False
        self._breaks_at = breaks_at

    def fileno(self) -> None:
        return None

    async def pieces(self, first: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        end = self.size_bytes if length is None else first + length
        for at in range(first, end, 10_000):
            await asyncio.sleep(0)
            if self._breaks_at is not None and at >= self._breaks_at:
                raise SourceUnreadable("its node is gone")
            yield self.data[at : min(at + 10_000, end)]

    def close(self) -> None:
        self.closed = True


class FakeRun:
    """A program in a slot, as a test moves it on."""

    def __init__(self, executor: FakeExecutor, slot_id: str, work: Work) -> None:
        self.slot_id = slot_id
        self.work = work
        self.stdin = Pipe() if work.stdin is None else None
        self.killed = False
        self.obeys = True
        self.stdout = Pipe()
        self.stderr = Pipe()
        self._executor = executor
        self._first: asyncio.Future[Ending | Output] = executor.loop.create_future()
        self._end: asyncio.Future[Ending] = executor.loop.create_future()
        self._handed_over = False

    async def first(self) -> Ending | Output:
        return await asyncio.shield(self._first)

    def wake(self, waiter: asyncio.Future[None]) -> None:
        def wake(_: object) -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._first.add_done_callback(wake)

    async def ending(self) -> Ending:
        return await asyncio.shield(self._end)

    def kill(self) -> None:
        if self._end.done() or self.killed:
            return
        self.killed = True
        if self.obeys:
            self._executor.loop.call_soon(self._die)

    def outgrow(self, stdout: bytes = b"", stderr: bytes = b"") -> None:
        """The output outgrows a message."""
        self._handed_over = True
        self._first.set_result(Output(stdout, stderr, self.stdout, self.stderr))

    def exit(
        self,
        code: int = 0,
        stdout: bytes = b"",
        stderr: bytes = b"",
        *,
        how: How = How.EXITED,
        killed: bool = False,
        files: Sequence[Source | NoFile] = (),
        cpu_us: int = 700,
        oom_kills: int = 0,
        clean: bool = True,
    ) -> None:
        """The program ends, and the slot is free, unless it must be cleaned first."""
        if self._end.done():
            return
        if self._handed_over:
            self.stdout.feed(stdout, end=True)
            self.stderr.feed(stderr, end=True)
            stdout = stderr = b""
        ending = Ending(
            how=how,
            code=code,
            killed=killed,
            oom_kills=oom_kills,
            wall_us=1000,
            cpu_us=cpu_us,
            max_rss_kib=64,
            handed_over=self._handed_over,
            stdout=stdout,
            stderr=stderr,
            files=list(files),
        )
        self._end.set_result(ending)
        if not self._first.done():
            self._first.set_result(ending)
        self._executor.ended(self, clean=clean)

    def lose(self, reason: str = "its guest is gone") -> None:
        """The slot dies under the program."""
        self._executor.lose(self.slot_id, reason)

    def lost(self, reason: str) -> None:
        if self._end.done():
            return
        self.stdout.feed(end=True)
        self.stderr.feed(end=True)
        for future in (self._end, self._first):
            if not future.done():
                future.set_exception(SlotLost(reason))
                future.exception()

    def _die(self) -> None:
        self.exit(9, how=How.SIGNALLED, killed=True)


class FakeExecutor:
    """`program`, where set, is called with each run that starts."""

    def __init__(self) -> None:
        self.runs: list[FakeRun] = []
        self.expected: dict[str, str] = {}
        self.current: dict[str, FakeRun | None] = {}
        self.program: Callable[[FakeRun], None] | None = None
        self.refuse: list[SchedulerError] = []
        self.most_at_once = 0
        self.closed = False

    async def open(self, events: SlotEvents) -> None:
        self.events = events
        self.loop = asyncio.get_running_loop()

    async def close(self) -> None:
        self.closed = True

    def expect(self, slot_id: str, token: str) -> None:
        assert slot_id not in self.expected
        self.expected[slot_id] = token

    def hello(self, slot_id: str) -> None:
        self.current[slot_id] = None
        self.events.slot_ready(slot_id)

    def run(self, slot_id: str, work: Work) -> FakeRun:
        if self.refuse:
            raise self.refuse.pop(0)
        if slot_id not in self.current:
            raise SlotLost(f"slot {slot_id} is gone")
        assert self.current[slot_id] is None, "two tasks in one slot"
        run = self.current[slot_id] = FakeRun(self, slot_id, work)
        self.runs.append(run)
        self.most_at_once = max(self.most_at_once, len(self.running))
        if self.program is not None:
            self.loop.call_soon(self.program, run)
        return run

    @property
    def running(self) -> list[FakeRun]:
        return [run for run in self.current.values() if run is not None]

    def ended(self, run: FakeRun, *, clean: bool) -> None:
        if self.current.get(run.slot_id) is run:
            self.current[run.slot_id] = None
            if clean:
                self.events.slot_freed(run.slot_id)

    def lose(self, slot_id: str, reason: str) -> None:
        run = self.current.pop(slot_id, None)
        if run is not None:
            run.lost(reason)
        self.events.slot_lost(slot_id, reason)

    def discard(self, slot_id: str) -> None:
        run = self.current.pop(slot_id, None)
        if run is not None:
            run.lost("the slot was retired")


class FakeImages:
    """A source of images in memory."""

    def __init__(self) -> None:
        self.known = {CAT.reference: CAT, CAT.digest: CAT}

    async def resolve(self, reference: str) -> Image:
        parse_reference(reference)
        if reference not in self.known:
            raise ImageUnknown(f"no such image here: {reference}")
        return self.known[reference]


class FakeLauncher:
    """`refuse` holds what the next starts raise; with `prompt` off, slots say hello only by `FakeExecutor.hello`."""

    def __init__(self, executor: FakeExecutor) -> None:
        self.executor = executor
        self.images = FakeImages()
        self.orders: list[SlotOrder] = []
        self.stopped: list[str] = []
        self.refuse: list[SchedulerError] = []
        self.away: SchedulerError | None = None
        self.prompt = True
        self.out_of_memory = False
        self.closed = False

    async def open(self) -> None:
        if self.away is not None:
            raise self.away

    async def close(self) -> None:
        self.closed = True

    async def check(self) -> None:
        if self.away is not None:
            raise self.away

    async def start(self, order: SlotOrder) -> None:
        self.orders.append(order)
        if self.refuse:
            raise self.refuse.pop(0)
        if self.prompt:
            self.executor.loop.call_soon(self.executor.hello, order.slot_id)

    async def stop(self, slot_id: str) -> None:
        self.stopped.append(slot_id)

    async def was_out_of_memory(self, slot_id: str) -> bool:
        return self.out_of_memory


def cat(run: FakeRun) -> None:
    """The program `cat`, for an input that was in its message."""
    run.exit(0, run.work.stdin or b"")


_: type[ByteReader] = Pipe
