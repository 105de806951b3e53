"""A task that holds a slot: from the start of its program to the record of what it used."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from scheduler.background import retrieve
from scheduler.clock import wall_us
from scheduler.errors import SchedulerError, SlotLost
from scheduler.execution import ByteReader, ByteWriter, Ending, How, Output, Run
from scheduler.live_output import LiveOutput, LiveOutputs, Tail
from scheduler.moments import Moments
from scheduler.outcome import conclude
from scheduler.outputs import OutputFiles
from scheduler.policy.storage import Holding
from scheduler.store.contract import BodyWriter
from scheduler.task import Reason, State, Task

DRAIN_TIMEOUT_S: Final = 30.0
"""Longest time, in seconds, that stderr is still read after the program's end; its writers are dead by then, so it is
at its end."""


class LiveTask:
    """The running side of a task. `record` is called with the concluded task, and makes its usage durable.

    Its output is read by one reader: `head` first, then `rest`, then `finish`. Who gives up calls `abandon`.
    Without `stderr_writer` the task is concluded as soon as its program has ended, since its reader may be slow or
    stop; then the record may be written a second time, with all that was read. With it, `finish` concludes.
    `files`, where output files were asked for, are kept before the record is written.
    """

    def __init__(
        self,
        task: Task,
        run: Run,
        argv0: bytes,
        record: Callable[[Task], Awaitable[None]],
        out_of_memory: Callable[[], Awaitable[bool]],
        *,
        files: OutputFiles | None = None,
        stdout_writer: BodyWriter | None = None,
        stderr_writer: BodyWriter | None = None,
        stderr_max_bytes: int = 0,
        stderr_holding: Holding | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self.task = task
        self.run = run
        # Why stderr could not be kept.
        self.stderr_error: SchedulerError | None = None
        self._argv0 = argv0
        self._record = record
        # Whether the whole slot died because the kernel found its memory used up: that ends the task, too.
        self._out_of_memory = out_of_memory
        self._clock = clock
        self._now_us = now_us
        self._began = clock()
        moments = self._moments = task.moments = task.moments or Moments()
        moments.started = max(0, now_us() - task.created_us)
        self._loop = asyncio.get_running_loop()
        self._why_killed: Reason | None = None
        self._output: Output | None = None
        self._stderr: asyncio.Task[None] | None = None
        self._concluding: asyncio.Task[Ending] | None = None
        self._ended: Ending | None = None
        self._recorded_bytes = -1
        self._files = files
        self._outputs: LiveOutputs | None = None
        # What became of its output, for those who begin to follow only now: all of it, where it fitted a message; if
        # all is stored; why it is lost.
        self._whole: tuple[bytes, bytes] | None = None
        self._stored = False
        self._lost: str | None = None
        self._stdout_writer = stdout_writer
        self._stderr_writer = stderr_writer
        self._stderr_max_bytes = stderr_max_bytes
        self._stderr_holding = stderr_holding

    @property
    def stdin(self) -> ByteWriter | None:
        return self.run.stdin

    @property
    def handed_over(self) -> bool:
        """True if the output outgrew one message."""
        return self._output is not None

    @property
    def outputs(self) -> LiveOutputs:
        """Its outputs, for those who follow them."""
        if self._outputs is None:
            self._outputs = LiveOutputs(self._stdout_writer or Tail(), self._stderr_writer or Tail())
            if self._whole is not None:
                self._saw_all(*self._whole)
            if self._stored:
                self._outputs.end()
            if self._lost is not None:
                self._outputs.lose(self._lost)
        return self._outputs

    def shown(self, output: LiveOutput) -> bool:
        """True if one of `outputs` has all that its program had written when somebody began to follow."""
        if self._output is None:
            return output.over
        of_stdout = output is self.outputs.stdout
        head = self._output.stdout_head if of_stdout else self._output.stderr_head
        return output.written.size_bytes >= len(head)

    def wrote_stdout(self) -> None:
        """Its reader has stored more of stdout."""
        if self._outputs is not None:
            self._outputs.stdout.changed()

    def stored(self) -> None:
        """Its reader has stored all of its output."""
        self._stored = True
        if self._outputs is not None:
            self._outputs.end()

    def lose(self, why: str) -> None:
        """Nothing more of its output comes, and the attempt did not end well."""
        self._lost = self._lost or why
        if self._outputs is not None:
            self._outputs.lose(why)

    def kill(self, why: Reason) -> None:
        """End the process tree now. The first reason counts; with `PLATFORM` the attempt is lost, as its slot."""
        if self._why_killed is None:
            self._why_killed = why
        self.run.kill()

    async def head(self, limit_bytes: int) -> tuple[bytes, bool]:
        """The output's beginning: all of it and True, or more than `limit_bytes` and False. Raises `SlotLost`."""
        try:
            first = await self.run.first()
        except SlotLost:
            if not self._was_wanted() and not await self._out_of_memory():
                self.close()
                raise
            self._saw_all(b"", b"")
            return b"", True
        if not isinstance(first, Output):
            self._saw_all(first.stdout, first.stderr)
            return first.stdout, True
        self._hand_over(first)
        chunks = [first.stdout_head] if first.stdout_head else []
        size = len(first.stdout_head)
        if size:
            self._first_byte()
        while size <= limit_bytes:
            chunk = await first.stdout.read()
            self._saw(chunk)
            if not chunk:
                first.stdout.close()
                break
            if not size:
                self._first_byte()
            chunks.append(chunk)
            size += len(chunk)
        data = b"".join(chunks)
        self._count(data)
        return data, size <= limit_bytes

    async def rest(self) -> AsyncIterator[bytes]:
        """Yield the rest of the output after an incomplete `head`."""
        assert self._output is not None
        while chunk := await self._output.stdout.read():
            if self._moments.first_byte is None:
                self._first_byte()
            self._count(chunk)
            self._saw(chunk)
            yield chunk
        self._saw(b"")
        self._output.stdout.close()

    async def finish(self) -> Ending:
        """Conclude the task once its output was read; its usage is recorded when this returns. Raises `SlotLost`, and
        `DiskFull` or `StoreError` when its files cannot be kept.

        It may be called again: after it was cancelled, and after it returned.
        """
        if self._ended is None:
            if self._concluding is None:
                if self._files is None or self._stderr_writer is not None:
                    return await self._conclude()
                # A caller who leaves now must not break files off whose task has succeeded.
                self._conclude_beside()
            assert self._concluding is not None
            await asyncio.shield(self._concluding)
            assert self._ended is not None
        if self._recorded_bytes != self.task.stdout_bytes:
            # The program had ended before its reader had read everything: now the number is known.
            await self._write_record()
        return self._ended

    def abandon(self) -> asyncio.Task[Ending]:
        """The reader is gone: kill, and conclude beside it. Its files are no longer wanted, except those being kept."""
        self._files = None
        self.lose("the task's caller has gone away")
        self.kill(Reason.CLIENT_GONE)
        if self._output is not None:
            self._output.stdout.close()
        return self._loop.create_task(self._given_up())

    def close(self) -> None:
        """Release what is held; for a task whose slot was lost."""
        self.lose("the platform lost the attempt")
        if self._output is not None:
            self._output.stdout.close()
            self._output.stderr.close()

    def _hand_over(self, output: Output) -> None:
        self._output = output
        self._stderr = self._loop.create_task(self._read_stderr(output.stderr_head, output.stderr))
        if self._stderr_writer is None:
            self.outputs.stdout.saw(output.stdout_head)
        if self._outputs is not None:
            # Those who ask only for what is there look again.
            self._outputs.stdout.changed()
            self._outputs.stderr.changed()
        if self._stderr_writer is None:
            # From here on the reader may be slow, or stop: the record does not wait for it.
            self._conclude_beside()

    async def _given_up(self) -> Ending:
        if self._ended is None and self._concluding is None:
            self._conclude_beside()
        ending = self._ended if self._concluding is None else await asyncio.shield(self._concluding)
        assert ending is not None
        ending.close_files()
        return ending

    def _conclude_beside(self) -> None:
        self._concluding = self._loop.create_task(self._conclude())
        self._concluding.add_done_callback(retrieve)

    async def _conclude(self) -> Ending:
        try:
            ending = await self.run.ending()
            if ending.lease != self.run.lease:
                ending.close_files()
                raise SlotLost(f"the slot told the end of another attempt: {ending.lease}")
        except SlotLost:
            # Asked also of a task that was being killed: its detail says so.
            out_of_memory = await self._out_of_memory()
            if not out_of_memory and not self._was_wanted():
                self.close()
                raise
            ending = self._killed_with_its_slot(out_of_memory=out_of_memory)
        try:
            if self._why_killed is Reason.PLATFORM and ending.killed:
                raise SlotLost("the platform had to end the attempt")
            files = self._files
            if files is not None:
                await files.keep(ending)
            elif ending.files:
                # No longer wanted; their slot waits for them.
                ending.close_files()
            if self._stderr is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stderr, DRAIN_TIMEOUT_S)
            # Its caller may have gone away while the record was written: then it is concluded again.
            if not self.task.ended:
                now_us = self._now_us()
                conclude(self.task, ending, why_killed=self._why_killed, argv0=self._argv0, now_us=now_us)
                if ending.stdout:
                    # It came in the same message.
                    self._moments.first_byte = max(0, now_us - self.task.created_us)
                if files is not None:
                    files.tell(self.task)
            await self._write_record()
        except BaseException:
            ending.close_files()
            raise
        self._ended = ending
        return ending

    async def _write_record(self) -> None:
        stdout_bytes = self.task.stdout_bytes
        if self.task.state is State.SUCCEEDED:
            # Its caller has it; rows of large outputs stay small.
            self.task.stdout_tail = b""
        await self._record(self.task)
        self._recorded_bytes = stdout_bytes

    def _was_wanted(self) -> bool:
        """True if the task's owner or its limits asked for its end: then losing the slot ends the task."""
        return self._why_killed is not None and self._why_killed is not Reason.PLATFORM

    def _killed_with_its_slot(self, *, out_of_memory: bool) -> Ending:
        return Ending(
            lease=self.run.lease,
            how=How.SIGNALLED,
            code=signal.SIGKILL,
            killed=self._why_killed is not None,
            oom_kills=int(out_of_memory),
            wall_us=round((self._clock() - self._began) * 1e6),
            cpu_us=0,
            max_rss_kib=0,
            handed_over=self.handed_over,
            stdout=b"",
            stderr=b"",
            files=[],
        )

    def _saw(self, data: bytes) -> None:
        """Stdout went on; empty: it is at its end."""
        if self._outputs is not None:
            self._outputs.stdout.saw(data)
            if not data:
                self._outputs.stdout.saw_all()

    def _saw_all(self, stdout: bytes, stderr: bytes) -> None:
        """The program has ended without having outgrown a message."""
        self._whole = stdout, stderr
        if self._outputs is not None:
            for output, data in ((self._outputs.stdout, stdout), (self._outputs.stderr, stderr)):
                output.saw(data)
                output.saw_all()

    def input_ended(self) -> None:
        """The last byte of a streamed input was handed to the program."""
        self._moments.input_ready = max(0, self._now_us() - self.task.created_us)

    def _first_byte(self) -> None:
        self._moments.first_byte = max(0, self._now_us() - self.task.created_us)

    def _count(self, data: bytes) -> None:
        self.task.stdout = self.task.stdout.then(data)

    async def _read_stderr(self, head: bytes, reader: ByteReader) -> None:
        task = self.task
        chunk = head
        try:
            while True:
                task.stderr = task.stderr.then(chunk)
                if self.stderr_error is None:
                    await self._keep_stderr(chunk)
                if self._outputs is not None:
                    self._outputs.stderr.saw(chunk)
                chunk = await reader.read()
                if not chunk:
                    return
        finally:
            if self._outputs is not None:
                self._outputs.stderr.saw_all()
            reader.close()

    async def _keep_stderr(self, chunk: bytes) -> None:
        # Bytes over the limit are counted and dropped: a long log is no reason to fail a task.
        writer = self._stderr_writer
        if writer is None or writer.size_bytes >= self._stderr_max_bytes:
            return
        kept = chunk[: self._stderr_max_bytes - writer.size_bytes]
        if self._stderr_holding is not None and not self._stderr_holding.try_grow(len(kept)):
            # The account keeps as many bytes as it may.
            self._stderr_max_bytes = 0
            return
        try:
            await writer.write(kept)
            if self._outputs is not None:
                self._outputs.stderr.changed()
        except SchedulerError as error:
            # The rest is read and dropped, so that the program can end.
            self.stderr_error = error
            self.kill(Reason.PLATFORM)
