"""Collects the outputs and files of an async task into the store's bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from scheduler.errors import SchedulerError
from scheduler.live import LiveTask
from scheduler.outputs import ACCOUNT_LEFT, FileLimits, OutputFiles
from scheduler.policy.storage import Holding
from scheduler.store.contract import Blobs, Results
from scheduler.task import Reason, Task


class KeepLimits(FileLimits, Protocol):
    """Maximum size of each body that a set keeps."""

    @property
    def stdout_max_bytes(self) -> int: ...
    @property
    def stderr_max_bytes(self) -> int: ...


class Collector:
    """The bodies of one attempt. Either `collect` returns them finished, or `abort` throws them away."""

    def __init__(self, blobs: Blobs, limits: KeepLimits, outputs: Sequence[str], holding: Holding) -> None:
        self._limits = limits
        self._holding = holding
        self._stdout = blobs.body()
        self._stderr = blobs.body()
        self._files = OutputFiles(blobs, limits, outputs, holding) if outputs else None
        self._too_large = False
        self._account_full = False

    def keep(self) -> dict[str, Any]:
        """The parts that a live task needs to keep stderr and files."""
        return {
            "files": self._files,
            "stdout_writer": self._stdout,
            "stderr_writer": self._stderr,
            "stderr_max_bytes": self._limits.stderr_max_bytes,
            "stderr_holding": self._holding,
        }

    async def collect(self, live: LiveTask) -> Results:
        """Read all output, wait for the end; the live task has kept the files by then.

        Raises `SlotLost`, `DiskFull`, `StoreError`: the attempt is lost then. More output than is kept fails the
        task, whose beginning is kept.
        """
        # Each piece is stored as it comes: somebody may follow.
        data, ended = await live.head(0)
        if live.handed_over:
            await self._keep_stdout(live, data)
            if not ended:
                async for chunk in live.rest():
                    await self._keep_stdout(live, chunk)
        try:
            ending = await live.finish()
        except SchedulerError as error:
            raise live.stderr_error or error from None
        if live.stderr_error is not None:
            raise live.stderr_error
        if not ending.handed_over:
            await self._stdout.write(ending.stdout)
            await self._stderr.write(ending.stderr[: self._limits.stderr_max_bytes])
        self._tell_what_is_missing(live.task)
        files = self._files.bodies if self._files is not None else {}
        results = Results(await self._stdout.finish(), await self._stderr.finish(), files)
        live.stored()
        return results

    def _tell_what_is_missing(self, task: Task) -> None:
        kept = (
            ("stdout", self._stdout.size_bytes, task.stdout_bytes),
            ("stderr", self._stderr.size_bytes, task.stderr_bytes),
        )
        for name, kept_bytes, written_bytes in kept:
            if kept_bytes < written_bytes:
                said = f"of its {name}, {written_bytes} bytes, this set keeps the first {kept_bytes}"
                full = self._account_full if name == "stdout" else kept_bytes < self._limits.stderr_max_bytes
                if full:
                    said += f", which is {ACCOUNT_LEFT}"
                task.detail = f"{task.detail}; {said}" if task.detail else said

    async def abort(self) -> None:
        """Discard everything that was written. Never raises: files that stay are removed later."""
        for writer in (self._stdout, self._stderr):
            try:
                await writer.abort()
            except (SchedulerError, OSError):
                continue
        if self._files is not None:
            await self._files.forget()

    async def _keep_stdout(self, live: LiveTask, data: bytes) -> None:
        # Over the limit the task is killed. The rest of its output is read and dropped, so that it can end.
        if self._too_large:
            return
        room = self._limits.stdout_max_bytes - self._stdout.size_bytes
        if not self._holding.try_grow(min(len(data), room)):
            self._account_full, room = True, 0
        if len(data) > room:
            self._too_large = True
            live.kill(Reason.OUTPUT_TOO_LARGE)
        if room > 0 and data:
            await self._stdout.write(data[:room])
            live.wrote_stdout()
