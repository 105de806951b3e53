"""A set's end of the link to one node: slots and programs there, as `sets.executor.executor` has them here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from functools import partial
from typing import Final

from scheduler.errors import EngineRefused, EngineUnavailable, SlotLost
from scheduler.execution import ExecutorEvents, NoFile, Work
from scheduler.launchers.doorway import CONTENT_FILE, FILES
from scheduler.policy.node import NodeFacts
from scheduler.source import Source
from scheduler.task import Lease
from sets.executor import protocol
from sets.executor.link import frames, messages
from sets.executor.link.endings import check_code, decode_ending
from sets.executor.link.flow import Inbound, Outbound
from sets.executor.link.frames import CLOCK, COUNT, STDERR, STDIN, STDOUT, LinkError
from sets.executor.link.handles import LinkReader, LinkWriter, link_file
from sets.executor.link.lease import Grants, clock_s
from sets.executor.link.messages import decode
from sets.executor.link.streams import Slot, Stream
from sets.executor.link.wire import Wire
from sets.executor.run import SlotRun

EXPECT_S: Final = 10.0
"""Longest time, in seconds, that an executor may take to listen for a slot."""
CONTENT_PIECE_BYTES: Final = 1 << 17
SLACK_US: Final = 1_000_000
"""How much more than the set's own clock allows, in microseconds, an executor may report of a task."""
DISCARDED_KEPT: Final = 1024
"""Most discarded slots that are remembered: an executor may report later how much CPU time was used in one."""


class Link:
    """One connection to a node's executor, from its welcome until its node counts as lost.

    `events` hears of the slots. While the connection is broken and the node may still run tasks, nothing happens here;
    then `lose` ends everything.
    """

    def __init__(self, wire: Wire, facts: NodeFacts, lease_s: float, events: ExecutorEvents) -> None:
        self.loop = wire.loop
        self.facts = facts
        self.grants = Grants(lease_s, clock_s())
        # The executor said that nothing of this set runs there any more.
        self.said_goodbye = False
        # Its executor limits and dresses slots, as their orchestrator cannot; those of earlier builds do not.
        self.dresses = False
        # Its executor has outputs handed over early; those of earlier builds do not.
        self.shows = False
        self._wire = wire
        self._events = events
        self._slots: dict[str, Slot] = {}
        self._discarded: dict[str, float] = {}
        self._expected: dict[str, asyncio.Future[str]] = {}
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count(1)
        self._last = 0
        self._silence: asyncio.TimerHandle | None = None
        self._begun = False
        self._ready = True
        wire.received = self._received
        self._watch()

    def begin(self) -> None:
        """`events` hears of the node from now on."""
        self._begun = True
        if self._ready:
            self._events.node_ready(self.facts)

    def _watch(self) -> None:
        """End the link where the executor has been silent for too long."""
        left_s = self.grants.silent_at - clock_s()
        if left_s <= 0:
            self._wire.fail(f"the executor of node {self.facts.id} was silent for {self.grants.lease_s:g} s")
        elif not self._wire.over:
            self._silence = self.loop.call_later(left_s, self._watch)

    # -- the executor's contract, for slots of this node

    async def expect(self, slot_id: str, token: str) -> None:
        """Have the executor listen for a slot. Raises `EngineUnavailable` when it does not."""
        self._slots[slot_id] = Slot()
        answer = self._answer(slot_id)
        self._wire.send(frames.EXPECT, messages.Expect(slot_id, token))
        if error := await self._answered(slot_id, answer):
            raise EngineUnavailable(f"node {self.facts.id} cannot listen for a slot: {error}")

    async def leave(self, slot_id: str, file: str, data: bytes) -> None:
        """Have the executor leave a file for the slot. Raises `EngineRefused`, `EngineUnavailable` if it does not."""
        if file != CONTENT_FILE and not self.dresses:
            raise EngineRefused(f"the executor of node {self.facts.id} cannot dress slots yet: upgrade it")
        answer = self._answer(slot_id)
        for at in range(0, len(data), CONTENT_PIECE_BYTES):
            piece = data[at : at + CONTENT_PIECE_BYTES]
            last = at + CONTENT_PIECE_BYTES >= len(data)
            self._wire.send(frames.CONTENT, messages.Content(slot_id, piece, last, file))
            await self._wire.drain()
        if error := await self._answered(slot_id, answer):
            raise EngineUnavailable(f"node {self.facts.id} cannot leave {FILES[file]}: {error}")

    def _answer(self, slot_id: str) -> asyncio.Future[str]:
        answer = self._expected[slot_id] = self.loop.create_future()
        return answer

    async def _answered(self, slot_id: str, answer: asyncio.Future[str]) -> str:
        """Wait for EXPECTED, and return its error; empty on success."""
        if self._wire.over:
            return "its link is broken"
        try:
            async with asyncio.timeout(EXPECT_S):
                return await answer
        except TimeoutError:
            return f"no answer within {EXPECT_S:g} s"
        finally:
            self._expected.pop(slot_id, None)

    def run(self, slot_id: str, work: Work, lease: Lease) -> SlotRun:
        """Start a program in a ready slot. Raises `SlotLost`, and `BadRequest` when the work does not fit a message."""
        slot = self._slots.get(slot_id)
        if slot is None or not slot.ready or slot.busy or self._wire.over:
            raise SlotLost(f"slot {slot_id} of node {self.facts.id} takes no task now")
        protocol.encode_strings(work)
        number = self._new_number()
        stdin = Outbound(self._wire, number, STDIN) if work.stdin is None else None
        writer = None if stdin is None else LinkWriter(stdin)
        run = SlotRun(self, number, lease, writer, len(work.outputs))
        self._streams[number] = Stream(slot_id, run, stdin)
        slot.busy, slot.run = True, number
        task = messages.Task(
            slot_id,
            lease.task_id,
            lease.number,
            work.argv,
            work.env,
            work.stdin,
            work.outputs,
            work.stream,
            work.prestart,
        )
        self._wire.send_urgent(frames.TASK, task, number)
        return run

    def kill(self, run: SlotRun) -> None:
        """End the run's process tree, if it still runs (`sets.executor.run.Place`)."""
        stream = self._streams.get(run.number)
        if stream is not None and stream.run is run and not run.kill_sent:
            run.kill_sent = True
            self._wire.send_raw(frames.KILL, b"", stream=run.number)

    def show(self, run: SlotRun) -> None:
        """Have the run's outputs handed over now (`sets.executor.run.Place`), if its executor can."""
        stream = self._streams.get(run.number)
        if self.shows and stream is not None and stream.run is run:
            self._wire.send_raw(frames.SHOW, b"", stream=run.number)

    def discard(self, slot_id: str) -> None:
        """Forget a slot, whatever its state; a program that runs in it is lost."""
        slot = self._slots.get(slot_id)
        if slot is not None:
            if len(self._discarded) >= DISCARDED_KEPT:
                del self._discarded[next(iter(self._discarded))]
            self._discarded[slot_id] = slot.since
            self._wire.send(frames.DISCARD, messages.SlotMessage(slot_id))
            self._forget(slot_id, "the slot was retired")

    def read_file(self, run: int, number: int, first: int, length: int) -> Inbound:
        """Return the channel on which these bytes of a run's output file arrive."""
        stream_number = self._new_number()
        inbound = Inbound(self._wire, stream_number, STDOUT)
        if self._wire.over:
            inbound.end(f"the link to node {self.facts.id} is broken")
        else:
            stream = self._streams[stream_number] = Stream()
            stream.channels[STDOUT] = inbound
            self._wire.send(frames.READ, messages.Read(run, number, first, length), stream=stream_number)
        return inbound

    def lose(self, reason: str) -> None:
        """Nothing of this set runs on the node any more: what ran there is lost."""
        if self._silence is not None:
            self._silence.cancel()
        for answer in self._expected.values():
            if not answer.done():
                answer.set_result(reason)
        for slot_id in list(self._slots):
            self._forget(slot_id, reason)
        for stream in self._streams.values():
            stream.end(reason)
        self._streams.clear()

    # -- from the executor

    def _received(self, kind: int, channel: int, number: int, body: memoryview) -> None:
        if kind == frames.EXIT:
            self._exited(number, decode(body, messages.Exit))
        elif kind == frames.DATA:
            if (inbound := self._inbound(number, channel)) is not None:
                inbound.feed(body)
        elif kind == frames.CREDIT:
            count = messages.decode_number(body, COUNT)
            stream = self._stream(number)
            if stream is not None and stream.stdin is not None and channel == STDIN:
                stream.stdin.credit(count)
        elif kind == frames.BEAT:
            clock_us = messages.decode_number(body, CLOCK)
            self.grants.beat(clock_s())
            self._wire.send_raw(frames.GRANT, CLOCK.pack(clock_us))
            self._wire.shrink()
        elif kind == frames.END:
            reason = decode(body, messages.Reason).reason
            if (inbound := self._inbound(number, channel)) is not None:
                inbound.end(reason)
                self._tidy(number)
        elif kind == frames.CLOSE:
            stream = self._stream(number)
            if stream is not None and stream.stdin is not None and channel == STDIN:
                stream.stdin.refuse()
        elif kind == frames.OUTPUT:
            self._output(number, decode(body, messages.Output))
        else:
            self._about_slot(kind, body)

    def _about_slot(self, kind: int, body: memoryview) -> None:
        """Handle a message about a slot. Slots that were let go meanwhile, and those of others, are ignored."""
        if kind == frames.READY:
            slot_id = decode(body, messages.SlotMessage).slot_id
            slot = self._slots.get(slot_id)
            if slot is not None:
                if slot.ready:
                    raise LinkError(f"slot {slot_id} is ready a second time")
                slot.ready, slot.since = True, clock_s()
                self._events.slot_ready(slot_id)
        elif kind == frames.FREED:
            spent = decode(body, messages.Spent)
            slot = self._slots.get(spent.slot_id)
            if slot is not None:
                if not slot.busy or slot.run is not None:
                    raise LinkError(f"slot {spent.slot_id} is free, though no task has ended in it")
                slot.busy = False
                self._events.slot_freed(spent.slot_id, spent.cpu_us)
        elif kind == frames.LOST:
            report = decode(body, messages.SlotReport)
            if report.slot_id in self._slots:
                self._forget(report.slot_id, report.reason)
                self._events.slot_lost(report.slot_id, report.reason)
        elif kind == frames.LEFT_OVER:
            self._left_over(decode(body, messages.Spent))
        elif kind == frames.UNFIT:
            report = decode(body, messages.SlotReport)
            if report.slot_id in self._slots:
                self._events.prestart_unfit(report.slot_id, report.reason)
        elif kind == frames.EXPECTED:
            expected = decode(body, messages.Expected)
            answer = self._expected.get(expected.slot_id)
            if answer is not None and not answer.done():
                answer.set_result(expected.error)
        elif kind == frames.HEALTH:
            self._ready = decode(body, messages.Health).ready
            if self._begun and self._ready:
                self._events.node_ready(self.facts)
            elif self._begun:
                self._events.node_draining(self.facts.id)
        elif kind == frames.GOODBYE:
            self.said_goodbye = True
            self._wire.close(f"the executor stopped: {decode(body, messages.Reason).reason}")
        else:
            raise LinkError(f"a frame of kind {kind}, which an executor does not send")

    def _output(self, number: int, message: messages.Output) -> None:
        stream = self._stream(number)
        if stream is None:
            return
        run = stream.run
        if run is None or run.handed_over:
            raise LinkError("an OUTPUT out of order")
        out, err = (Inbound(self._wire, number, channel) for channel in (STDOUT, STDERR))
        stream.channels = {STDOUT: out, STDERR: err}
        loop = self.loop
        run.output_came(message.stdout, message.stderr, LinkReader(loop, out), LinkReader(loop, err))

    def _exited(self, number: int, message: messages.Exit) -> None:
        stream = self._stream(number)
        if stream is None:
            return
        run = stream.run
        if run is None or message.handed_over != run.handed_over or len(message.files) != run.file_count:
            raise LinkError("an EXIT that contradicts what was before it")
        check_code(message)
        slot = self._slots[stream.slot_id]
        now = clock_s()
        if message.wall_us > (now - stream.began) * 1e6 + SLACK_US:
            raise LinkError(f"a program that ran for {message.wall_us} µs, longer than the set knows of it")
        self._check_cpu(message.cpu_us, now - slot.since)
        slot.since, slot.run = now, None
        handed_back: Callable[[], None] | None = None
        files: list[Source | NoFile] = []
        if message.files:
            files = [
                link_file(self.read_file, number, at, size) if size >= 0 else NoFile(-size)
                for at, size in enumerate(message.files)
            ]
            if max(message.files) >= 0:
                # The garbage collector may close them, in any thread.
                handed_back = partial(self._hand_back, number)
        ending = decode_ending(message, files, handed_back)
        stream.run = None
        if stream.stdin is not None:
            stream.stdin.refuse()
        slot_id = stream.slot_id
        run.end_came(ending)
        self._tidy(number)
        if message.freed:
            slot.busy = False
            self._events.slot_freed(slot_id, message.cpu_us)

    def _left_over(self, spent: messages.Spent) -> None:
        since = self._discarded.pop(spent.slot_id, None)
        if since is None:
            slot = self._slots.get(spent.slot_id)
            if slot is None:
                return
            since, slot.since = slot.since, clock_s()
        self._check_cpu(spent.cpu_us, clock_s() - since)
        self._events.left_over(spent.slot_id, spent.cpu_us)

    def _check_cpu(self, cpu_us: int, passed_s: float) -> None:
        """Raise `LinkError` for more CPU time than all of the node's cores had since the slot's last report."""
        if cpu_us > passed_s * 1.5e4 * self.facts.cpu_percent + SLACK_US:
            raise LinkError(f"{cpu_us} µs of CPU time, far more than the node's cores had")

    # -- streams

    def _new_number(self) -> int:
        self._last = next(self._numbers)
        return self._last

    def _stream(self, number: int) -> Stream | None:
        """The stream; None where it has ended here, while this was on its way."""
        stream = self._streams.get(number)
        if stream is None and not 0 < number <= self._last:
            raise LinkError(f"stream {number}, which was never opened")
        return stream

    def _inbound(self, number: int, channel: int) -> Inbound | None:
        stream = self._stream(number)
        return None if stream is None else stream.channels.get(channel)

    def _tidy(self, number: int) -> None:
        """Forget a stream on which nothing follows."""
        stream = self._streams.get(number)
        if stream is not None and stream.run is None and all(each.over for each in stream.channels.values()):
            del self._streams[number]

    def _hand_back(self, number: int) -> None:
        # A loop that has ended has no links either.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._release, number)

    def _release(self, number: int) -> None:
        self._wire.send_raw(frames.RELEASE, b"", stream=number)

    def _forget(self, slot_id: str, reason: str) -> None:
        """The slot is gone, and a program that runs in it is lost."""
        slot = self._slots.pop(slot_id)
        if slot.run is not None:
            stream = self._streams.pop(slot.run)
            run = stream.run
            assert run is not None
            stream.end(reason)
            run.lost(reason)
