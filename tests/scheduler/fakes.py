"""An executor and a launcher in memory: slots that are ready at once, programs that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from scheduler.errors import EngineRefused, EngineUnavailable, ImageUnknown, SchedulerError, SlotLost
from scheduler.execution import ByteReader, Ending, How, NoFile, Output, SlotEvents, Work
from scheduler.image import Image
from scheduler.images.reference import parse_reference
from scheduler.launchers.contract import SlotGone, SlotOrder
from scheduler.source import Source, SourceUnreadable
from scheduler.task import Lease

CAT = Image("cat:1", "sha256:" + "c" * 64, "sha256:" + "c" * 64, entrypoint=("/cat",))


class Pipe:
    """Both ends of a pipe of a program."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.closed = False
        self.ended = False
        self.waiting = False
        """A writer waits until the program reads."""
        self._changed = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> asyncio.Event:
        """The program does not read, until what is returned is set."""
        self._open.clear()
        return self._open

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
        self.waiting = not self._open.is_set()
        await self._open.wait()
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
    """A program in a slot, moved on by the test."""

    def __init__(self, executor: FakeExecutor, slot_id: str, work: Work, lease: Lease) -> None:
        self.slot_id = slot_id
        self.lease = lease
        self.work = work
        self.stdin = Pipe() if work.stdin is None else None
        self.cpu_us = 0
        self.killed = False
        self.shown = False
        self.obeys = True
        self.stdout = Pipe()
        self.stderr = Pipe()
        self._executor = executor
        self._first: asyncio.Future[Ending | Output] = executor.loop.create_future()
        self._end: asyncio.Future[Ending] = executor.loop.create_future()
        self._handed_over = False
        self._listener: Callable[[Ending | Output | None], None] | None = None

    async def first(self) -> Ending | Output:
        return await asyncio.shield(self._first)

    def wake(self, waiter: asyncio.Future[None]) -> None:
        def wake(_: object) -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._first.add_done_callback(wake)

    def tell(self, listener: Callable[[Ending | Output | None], None]) -> None:
        self._listener = listener

    def _tell(self, first: Ending | Output | None) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener(first)

    async def ending(self) -> Ending:
        return await asyncio.shield(self._end)

    def show(self) -> None:
        """Somebody follows: the output is handed over at once, but for what the test lets it write later."""
        self.shown = True

    def kill(self) -> None:
        if self._end.done() or self.killed:
            return
        self.killed = True
        if self.obeys:
            self._executor.loop.call_soon(self._die)

    def outgrow(self, stdout: bytes = b"", stderr: bytes = b"") -> None:
        """The output outgrows a message."""
        self._handed_over = True
        output = Output(stdout, stderr, self.stdout, self.stderr)
        self._first.set_result(output)
        self._tell(output)

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
        lease: Lease | None = None,
    ) -> None:
        """The program ends, and the slot is free, unless it must be cleaned first."""
        if self._end.done():
            return
        if self._handed_over:
            self.stdout.feed(stdout, end=True)
            self.stderr.feed(stderr, end=True)
            stdout = stderr = b""
        ending = Ending(
            lease=lease or self.lease,
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
            frees=clean,
        )
        self._end.set_result(ending)
        if not self._first.done():
            self._first.set_result(ending)
            self._tell(ending)
        self.cpu_us = cpu_us
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
        self._tell(None)

    def _die(self) -> None:
        self.exit(9, how=How.SIGNALLED, killed=True)


class FakeExecutor:
    """`program`, where set, is called with each run that starts."""

    def __init__(self) -> None:
        self.runs: list[FakeRun] = []
        self.expected: dict[str, str] = {}
        self.left: dict[tuple[str, str], bytes] = {}
        """Files left beside slots' sockets, by slot and file."""
        self.current: dict[str, FakeRun | None] = {}
        self.program: Callable[[FakeRun], None] | None = None
        self.refuse: list[SchedulerError] = []
        self.refuse_expect: list[SchedulerError] = []
        self.most_at_once = 0
        self.closed = False

    async def open(self, events: SlotEvents) -> None:
        self.events = events
        self.loop = asyncio.get_running_loop()

    async def close(self) -> None:
        self.closed = True

    async def expect(self, slot_id: str, token: str, node: str = "") -> None:
        assert slot_id not in self.expected
        if self.refuse_expect:
            raise self.refuse_expect.pop(0)
        self.expected[slot_id] = token

    async def leave(self, slot_id: str, file: str, data: bytes) -> None:
        if self.refuse_expect:
            raise self.refuse_expect.pop(0)
        self.left[slot_id, file] = data

    def hello(self, slot_id: str) -> None:
        self.current[slot_id] = None
        self.events.slot_ready(slot_id)

    def run(self, slot_id: str, work: Work, lease: Lease) -> FakeRun:
        if self.refuse:
            raise self.refuse.pop(0)
        if slot_id not in self.current:
            raise SlotLost(f"slot {slot_id} is gone")
        assert self.current[slot_id] is None, "two tasks in one slot"
        run = self.current[slot_id] = FakeRun(self, slot_id, work, lease)
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
                self.events.slot_freed(run.slot_id, run.cpu_us)

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


class FakeEngine:
    """The engine that launchers start slots on, in memory. It outlives them, as an engine does. `slots`: those that
    run."""

    def __init__(self) -> None:
        self.slots: dict[str, SlotOrder] = {}
        self.images_gone: set[str] = set()
        self.out_of_memory: set[str] = set()
        self.short_lived = False
        """Whether slots end as soon as they have begun."""
        self._launchers: list[FakeLauncher] = []

    def attach(self, launcher: FakeLauncher) -> None:
        self._launchers.append(launcher)

    def run(self, order: SlotOrder) -> None:
        self.slots[order.slot_id] = order
        if self.short_lived:
            self.end(order.slot_id, "its container ended")

    def end(self, slot_id: str, reason: str, *, out_of_memory: bool = False) -> None:
        """End a slot, for any reason."""
        del self.slots[slot_id]
        if out_of_memory:
            self.out_of_memory.add(slot_id)
        for launcher in self._launchers:
            launcher.ended(slot_id, reason)


class FakeLauncher:
    """`refuse` holds what the next starts raise; with `prompt` off, slots say hello only by `FakeExecutor.hello`."""

    def __init__(
        self, executor: FakeExecutor, engine: FakeEngine | None = None, on_gone: SlotGone | None = None
    ) -> None:
        self.executor = executor
        self.engine = engine or FakeEngine()
        self.engine.attach(self)
        self.images = FakeImages()
        self.orders: list[SlotOrder] = []
        self.stopped: list[str] = []
        self.remains: set[str] = set()
        """Slots that were stopped, and of which something is left."""
        self.refuse: list[SchedulerError] = []
        self.away: SchedulerError | None = None
        self.prompt = True
        self.start_takes_s = 0.0
        self.slot_life_s: float | None = None
        self.out_of_memory = False
        self.closed = False
        self._on_gone = on_gone
        self._opened = False
        self._starting: dict[str, str | None] = {}
        """Slots that start, and why they must not."""
        self._running: set[str] = set()

    async def open(self) -> None:
        if self.away is not None:
            raise self.away
        self._opened = True
        self.engine.slots.clear()

    async def close(self) -> None:
        self.closed = True
        for slot_id in self._starting:
            self._starting[slot_id] = "the launcher was closed"
        for slot_id in self._running:
            self.engine.slots.pop(slot_id, None)
        self._running.clear()

    async def check(self) -> None:
        if self.away is not None:
            raise self.away
        if not self._opened:
            raise EngineUnavailable("not connected")

    async def start(self, order: SlotOrder) -> None:
        slot_id = order.slot_id
        self.orders.append(order)
        if self.closed:
            raise EngineUnavailable("the launcher is closed")
        if slot_id in self._starting or slot_id in self._running:
            raise EngineRefused(f"slot {slot_id} was started already")
        if self.refuse:
            raise self.refuse.pop(0)
        if order.image.image_id in self.engine.images_gone:
            raise ImageUnknown(f"no such image here: {order.image.reference}")
        self._starting[slot_id] = None
        try:
            if self.start_takes_s:
                await asyncio.sleep(self.start_takes_s)
            if (why := self._starting[slot_id]) is not None:
                raise EngineRefused(f"slot {slot_id} was stopped while it started: {why}")
            self.engine.run(order)
            gone = self._starting[slot_id]
        finally:
            del self._starting[slot_id]
        self._running.add(slot_id)
        if gone is not None:
            # After the caller has seen its start return.
            asyncio.get_running_loop().call_soon(self.ended, slot_id, gone)
        if self.prompt:
            self.executor.loop.call_soon(self.executor.hello, slot_id)

    def ready(self, slot_id: str) -> None: ...

    async def stop(self, slot_id: str) -> None:
        self.stopped.append(slot_id)
        if slot_id in self._starting:
            self._starting[slot_id] = "stop was called"
        elif slot_id in self._running:
            self._running.discard(slot_id)
            self.engine.slots.pop(slot_id, None)

    async def there(self) -> frozenset[str]:
        if self.away is not None:
            raise self.away
        return frozenset((*self._starting, *self.engine.slots, *self.remains))

    async def was_out_of_memory(self, slot_id: str) -> bool:
        return self.out_of_memory or slot_id in self.engine.out_of_memory

    def ended(self, slot_id: str, reason: str) -> None:
        """Return the engine's report about a slot."""
        if slot_id in self._starting:
            self._starting[slot_id] = reason
        elif slot_id in self._running:
            self._running.discard(slot_id)
            if self._on_gone is not None:
                self._on_gone(slot_id, reason)


def cat(run: FakeRun) -> None:
    """The program `cat`, for an input that was in its message."""
    run.exit(0, run.work.stdin or b"")


_: type[ByteReader] = Pipe
