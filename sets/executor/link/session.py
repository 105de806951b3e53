"""An executor's end of the link to one set: carries out what the set orders, and tells what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from scheduler.background import Background
from scheduler.errors import SchedulerError
from sets.executor.link import frames, messages
from sets.executor.link.frames import CLOCK, COUNT, STDIN, LinkError
from sets.executor.link.lease import BEATS_A_LEASE, Tenure, clock_s
from sets.executor.link.messages import cut, decode
from sets.executor.link.programs import Programs
from sets.executor.link.served import NodeExecutor
from sets.executor.link.wire import Wire

CONTENTS_BYTES: Final = 64 << 20
"""Most bytes of files for guests that a set may send before they are whole: a file has 1 MiB as a rule."""


class Session:
    """The part of this node that one set uses. `executor` holds its slots, and no other set's; `ended` is called once.

    When the link breaks, or the set grants no more time, every slot is let go at once: their guests kill what runs.
    """

    def __init__(
        self,
        wire: Wire,
        executor: NodeExecutor,
        lease_s: float,
        max_slots: int,
        ended: Callable[[str], None],
    ) -> None:
        self._wire = wire
        self._loop = wire.loop
        self._executor = executor
        self._max_slots = max_slots
        self._ended = ended
        self._slots: set[str] = set()
        # Files for guests, of which parts have come.
        self._contents: dict[str, bytearray] = {}
        self._background = Background()
        # Set when a GRANT came, and when a program has ended.
        self._news = asyncio.Event()
        self._programs = Programs(wire, executor, self._background, self._news)
        self._tenure = Tenure(lease_s, clock_s())
        self._beat_s = lease_s / BEATS_A_LEASE
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._over = False

    def begin(self) -> None:
        """The set was welcomed: from now on it may order."""
        self._wire.received = self._received
        self._wire.ended = self.end
        self._beat()
        self._check_tenure()

    async def drain(self, reason: str) -> None:
        """Have the set send no more tasks, and wait until those that it has sent have ended."""
        self.tell_health(False, reason)
        # The set answers this BEAT after it has seen the HEALTH, and after the tasks that were on their way.
        last_us = self._send_beat()
        while not self._over and (self._tenure.granted_us < last_us or self._programs.busy):
            self._news.clear()
            await self._news.wait()

    def tell_health(self, ready: bool, reason: str = "") -> None:
        """Tell the set whether this node takes new tasks."""
        self._wire.send(frames.HEALTH, messages.Health(ready, cut(reason)))

    def leave(self, reason: str) -> None:
        """End the link in an orderly way: when the set hears of it, nothing of it runs here any more."""
        self._kill()
        self._wire.send(frames.GOODBYE, messages.Reason(cut(reason)))
        self._wire.close(reason)

    def end(self, reason: str) -> None:
        """The link is over: nothing of this set may go on here."""
        if self._over:
            return
        self._over = True
        self._news.set()
        self._kill()
        for timer in self._timers.values():
            timer.cancel()
        self._wire.close(reason)
        self._ended(reason)

    async def close(self) -> None:
        """Wait until all is released; after `end`."""
        await self._background.stop(0)
        await self._executor.close()

    def _kill(self) -> None:
        for slot_id in list(self._slots):
            self._executor.discard(slot_id)
        self._slots.clear()

    # -- time

    def _send_beat(self) -> int:
        clock_us = self._tenure.beat(clock_s())
        self._wire.send_raw(frames.BEAT, CLOCK.pack(clock_us))
        return clock_us

    def _beat(self) -> None:
        self._send_beat()
        self._wire.shrink()
        self._timers["beat"] = self._loop.call_later(self._beat_s, self._beat)

    def _check_tenure(self) -> None:
        left_s = self._tenure.over_at - clock_s()
        if left_s <= 0:
            self.end(f"the set granted no time for {self._tenure.lease_s:g} s")
        else:
            self._timers["tenure"] = self._loop.call_later(left_s, self._check_tenure)

    # -- from the set

    def _received(self, kind: int, channel: int, number: int, body: memoryview) -> None:
        if kind == frames.TASK:
            self._programs.run(number, decode(body, messages.Task))
        elif kind == frames.DATA:
            served = self._programs.find(number)
            if served is not None and served.stdin is not None and channel == STDIN:
                served.stdin.feed(body)
        elif kind == frames.CREDIT:
            count = messages.decode_number(body, COUNT)
            served = self._programs.find(number)
            if served is not None and channel in served.out:
                served.out[channel][0].credit(count)
        elif kind == frames.GRANT:
            self._tenure.granted(messages.decode_number(body, CLOCK))
            self._news.set()
        elif kind == frames.END:
            reason = decode(body, messages.Reason).reason
            served = self._programs.find(number)
            if served is not None and served.stdin is not None and channel == STDIN:
                served.stdin.end(reason)
        elif kind == frames.KILL:
            served = self._programs.find(number)
            if served is not None and served.run is not None:
                served.run.kill()
        elif kind == frames.SHOW:
            served = self._programs.find(number)
            if served is not None and served.run is not None:
                served.run.show()
        elif kind == frames.CLOSE:
            self._programs.close(number, channel)
        elif kind == frames.READ:
            self._programs.read(number, decode(body, messages.Read))
        elif kind == frames.RELEASE:
            self._programs.release(number)
        elif kind == frames.EXPECT:
            self._expect(decode(body, messages.Expect))
        elif kind == frames.CONTENT:
            self._content(decode(body, messages.Content))
        elif kind == frames.DISCARD:
            slot_id = decode(body, messages.SlotMessage).slot_id
            self._slots.discard(slot_id)
            self._contents.pop(slot_id, None)
            self._executor.discard(slot_id)
            self._programs.slot_gone(slot_id)
        elif kind == frames.GOODBYE:
            self.end(f"the set left: {decode(body, messages.Reason).reason}")
        else:
            raise LinkError(f"a frame of kind {kind}, which a set does not send")

    def _expect(self, expect: messages.Expect) -> None:
        slot_id = expect.slot_id
        if slot_id in self._slots:
            error = "it is expected already"
        elif len(self._slots) >= self._max_slots:
            error = f"the set has all the slots here that its share allows: {self._max_slots}"
        else:
            self._slots.add(slot_id)
            self._background.spawn(self._answer(slot_id, self._listen(slot_id, expect.token)))
            return
        self._wire.send(frames.EXPECTED, messages.Expected(slot_id, error))

    async def _listen(self, slot_id: str, token: str) -> None:
        try:
            await self._executor.expect(slot_id, token)
        except (OSError, SchedulerError):
            self._slots.discard(slot_id)
            raise
        if slot_id not in self._slots:
            # The set let it go meanwhile.
            self._executor.discard(slot_id)

    async def _answer(self, slot_id: str, work: Awaitable[None]) -> None:
        """Prepare a slot as the set asked, and answer how that went."""
        error = ""
        try:
            await work
        except (OSError, SchedulerError) as failed:
            error = cut(str(failed))
        self._wire.send(frames.EXPECTED, messages.Expected(slot_id, error))

    def _content(self, content: messages.Content) -> None:
        slot_id = content.slot_id
        if slot_id not in self._slots:
            # The set let it go meanwhile.
            return
        self._contents.setdefault(slot_id, bytearray()).extend(content.data)
        if sum(map(len, self._contents.values())) > CONTENTS_BYTES:
            raise LinkError(f"more than {CONTENTS_BYTES} bytes of files for guests at a time")
        if content.last:
            leaving = self._executor.leave(slot_id, content.file, bytes(self._contents.pop(slot_id)))
            self._background.spawn(self._answer(slot_id, leaving))

    # -- from this machine's executor (`scheduler.execution.SlotEvents`)

    def slot_ready(self, slot_id: str) -> None:
        self._wire.send(frames.READY, messages.SlotMessage(slot_id))

    def slot_freed(self, slot_id: str, cpu_us: int) -> None:
        self._programs.slot_freed(slot_id, cpu_us)

    def slot_lost(self, slot_id: str, reason: str) -> None:
        self._slots.discard(slot_id)
        self._contents.pop(slot_id, None)
        self._programs.slot_gone(slot_id)
        self._wire.send(frames.LOST, messages.SlotReport(slot_id, cut(reason)))

    def left_over(self, slot_id: str, cpu_us: int) -> None:
        self._wire.send(frames.LEFT_OVER, messages.Spent(slot_id, max(0, cpu_us)))

    def prestart_unfit(self, slot_id: str, reason: str) -> None:
        self._wire.send(frames.UNFIT, messages.SlotReport(slot_id, cut(reason)))
