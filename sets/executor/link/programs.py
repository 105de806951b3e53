"""An executor's end of a link's streams: the programs that run for the set, and the output files that it reads."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from scheduler.background import Background
from scheduler.errors import BadRequest, SlotLost
from scheduler.execution import ByteReader, Ending, NoFile, Output, Run, Work
from scheduler.source import SourceUnreadable
from scheduler.task import Lease
from sets.executor.link import frames, messages
from sets.executor.link.endings import encode_ending
from sets.executor.link.flow import Inbound, Outbound
from sets.executor.link.frames import STDERR, STDIN, STDOUT, LinkError
from sets.executor.link.messages import cut
from sets.executor.link.served import NodeExecutor, Served, feed
from sets.executor.link.wire import Wire

READS_MOST: Final = 1024
"""How many output files may be read at a time over one link."""


class Programs:
    """The streams of a link that the set opens. Methods raise `LinkError` where the set broke the rules."""

    def __init__(
        self, wire: Wire, executor: NodeExecutor, background: Background, ended: asyncio.Event
    ) -> None:
        self._wire = wire
        self._executor = executor
        self._background = background
        # Set when a program has ended.
        self._ended = ended
        self._served: dict[int, Served] = {}
        # The run of each slot that has one.
        self._by_slot: dict[str, Served] = {}
        self._reads = 0
        self.last = 0
        """The newest stream."""

    @property
    def busy(self) -> bool:
        """True while a program runs, or its slot is not clean."""
        return bool(self._by_slot)

    def find(self, number: int) -> Served | None:
        """Return the stream; None where it has ended here, while a frame about it was on its way."""
        served = self._served.get(number)
        if served is None and not 0 < number <= self.last:
            raise LinkError(f"stream {number}, which was never opened")
        return served

    def run(self, number: int, task: messages.Task) -> None:
        """TASK: start a program."""
        self._open(number)
        if task.slot_id in self._by_slot:
            raise LinkError(f"a TASK for slot {task.slot_id}, which has a task already")
        work = Work(
            argv=task.argv,
            env=task.env,
            stdin=task.stdin,
            outputs=task.outputs,
            stream=task.streams_at_once,
            prestart=task.prestart,
        )
        try:
            run = self._executor.run(task.slot_id, work, Lease(task.task_id, task.lease_number))
        except SlotLost as error:
            # Where the set knows that already, it ignores this.
            self._wire.send(frames.LOST, messages.SlotReport(task.slot_id, cut(str(error))))
            return
        except (BadRequest, ValueError) as error:
            raise LinkError(f"a TASK that no guest could be given: {error}") from error
        served = self._served[number] = self._by_slot[task.slot_id] = Served(number, task.slot_id, run)
        if run.stdin is not None:
            served.stdin = Inbound(self._wire, number, STDIN)
            self._background.spawn(feed(served.stdin, run))
        run.tell(partial(self._came, served))

    def read(self, number: int, read: messages.Read) -> None:
        """READ: send a part of an output file."""
        self._open(number)
        out = Outbound(self._wire, number, STDOUT)
        owner = self._served.get(read.run)
        files = [] if owner is None or owner.files is None else owner.files.files
        if read.file >= len(files) or self._reads >= READS_MOST:
            out.end("the file was given back already, or too many are read at a time")
            return
        served = self._served[number] = Served(number)
        served.out[STDOUT] = (out, None)
        # Here, as many READs may come in one piece, before the first is sent.
        self._reads += 1
        self._background.spawn(self._send_file(number, out, files[read.file], read))

    def release(self, number: int) -> None:
        """RELEASE: the set needs a program's output files no longer."""
        served = self.find(number)
        if served is not None and served.files is not None:
            served.files.close_files()
            served.files = None
            self._tidy(number)

    def close(self, number: int, channel: int) -> None:
        """CLOSE: the set no longer reads a channel."""
        served = self.find(number)
        if served is None or channel not in served.out:
            return
        out, reader = served.out[channel]
        out.refuse()
        if reader is not None:
            reader.close()

    def _open(self, number: int) -> None:
        if number <= self.last:
            raise LinkError(f"stream {number} is opened after stream {self.last}")
        self.last = number

    def _tidy(self, number: int) -> None:
        served = self._served.get(number)
        if served is not None and served.exit_sent and not served.out and served.files is None:
            del self._served[number]

    # -- from the slots

    def slot_freed(self, slot_id: str, cpu_us: int) -> None:
        """The slot is clean: tell it together with the end of its program, where that is still to be told."""
        served = self._by_slot.get(slot_id)
        if served is not None and not served.exit_sent:
            served.freed = True
            self._exited(served)
            return
        if served is not None:
            self._leave_slot(served)
        self._wire.send(frames.FREED, messages.Spent(slot_id, cpu_us))

    def slot_gone(self, slot_id: str) -> None:
        """The slot was lost, or let go."""
        served = self._by_slot.get(slot_id)
        if served is not None:
            self._leave_slot(served)

    def _came(self, served: Served, first: Ending | Output | None) -> None:
        """A program's output outgrew a message, or it has ended, or was lost with its slot."""
        if isinstance(first, Output):
            assert served.run is not None
            self._background.spawn(self._serve(served, served.run, self._hand_over(served, first)))
        elif first is not None:
            served.ending = first
            # Otherwise `slot_freed` is called next, and tells both.
            if not first.frees:
                self._exited(served)
        else:
            self._gone(served)

    def _hand_over(self, served: Served, output: Output) -> list[asyncio.Task[None]]:
        number = served.number
        self._wire.send(frames.OUTPUT, messages.Output(output.stdout_head, output.stderr_head), stream=number)
        pumps = []
        for channel, reader in ((STDOUT, output.stdout), (STDERR, output.stderr)):
            out = Outbound(self._wire, number, channel)
            served.out[channel] = (out, reader)
            pumps.append(self._background.spawn(self._pump(number, channel, out, reader)))
        return pumps

    async def _serve(self, served: Served, run: Run, pumps: list[asyncio.Task[None]]) -> None:
        """Wait for the end of a program whose output outgrew a message."""
        try:
            served.ending = await run.ending()
        except SlotLost:
            self._gone(served)
            for pump in pumps:
                pump.cancel()
        else:
            self._exited(served)

    def _gone(self, served: Served) -> None:
        # The set hears of the slot, in which no program runs any more.
        self._served.pop(served.number, None)
        if served.stdin is not None:
            # No more of it comes, so the task that feeds the program would wait for as long as the link lasts.
            served.stdin.end()
        self._leave_slot(served)

    def _exited(self, served: Served) -> None:
        """Tell the set of an end, unless it was told."""
        ending, served.ending = served.ending, None
        if ending is None:
            return
        if served.stdin is not None:
            served.stdin.close()
        files = tuple(-each.errno if isinstance(each, NoFile) else each.size_bytes for each in ending.files)
        if files and max(files) >= 0:
            served.files = ending
        else:
            ending.close_files()
        message = encode_ending(ending, files, freed=served.freed)
        self._wire.send_urgent(frames.EXIT, message, served.number)
        served.run = None
        served.exit_sent = True
        if served.freed:
            self._leave_slot(served)
        self._tidy(served.number)

    def _leave_slot(self, served: Served) -> None:
        if self._by_slot.get(served.slot_id) is served:
            del self._by_slot[served.slot_id]
            self._ended.set()

    async def _pump(self, number: int, channel: int, out: Outbound, reader: ByteReader) -> None:
        try:
            while data := await reader.read():
                await out.send(data)
        except BrokenPipeError:
            # The set no longer reads.
            pass
        finally:
            reader.close()
        self._finish(number, channel, out)

    async def _send_file(self, number: int, out: Outbound, file: object, read: messages.Read) -> None:
        reason = ""
        try:
            if isinstance(file, NoFile):
                raise SourceUnreadable("there is no file")
            async for piece in file.pieces(read.first, read.length):  # type: ignore[attr-defined]
                await out.send(piece)
        except BrokenPipeError:
            pass
        except (SlotLost, SourceUnreadable) as error:
            reason = str(error)
        finally:
            self._reads -= 1
        self._served[number].exit_sent = True
        self._finish(number, STDOUT, out, reason)

    def _finish(self, number: int, channel: int, out: Outbound, reason: str = "") -> None:
        out.end(reason)
        served = self._served.get(number)
        if served is not None:
            served.out.pop(channel, None)
            self._tidy(number)
