"""Collects what an async task leaves: its outputs and its files, into the store's bodies."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final, Protocol

from scheduler.errors import SchedulerError
from scheduler.execution import Ending
from scheduler.live import LiveTask, close_files
from scheduler.store.contract import EMPTY, INLINE_BYTES, Blobs, Body, BodyWriter, Results
from scheduler.task import Reason

COPY_BYTES: Final = 1 << 20
DETAIL_CHARS: Final = 2000


class KeepLimits(Protocol):
    """How much of each body a set keeps."""

    @property
    def stdout_max_bytes(self) -> int: ...
    @property
    def stderr_max_bytes(self) -> int: ...
    @property
    def file_max_bytes(self) -> int: ...


class Collector:
    """The bodies of one attempt. Either `collect` returns them finished, or `abort` throws them away."""

    def __init__(self, blobs: Blobs, limits: KeepLimits) -> None:
        self._blobs = blobs
        self._limits = limits
        self._stdout = blobs.body()
        self._stderr = blobs.body()
        self._writers: list[BodyWriter] = [self._stdout, self._stderr]
        self._too_large = False

    def keep(self) -> dict[str, Any]:
        """What the live task needs to keep stderr."""
        return {"stderr_writer": self._stderr, "stderr_max_bytes": self._limits.stderr_max_bytes}

    async def collect(self, live: LiveTask) -> Results:
        """Read all output, wait for the end, keep the files; those that cannot be kept are in the task's detail.

        Raises `SlotLost`, `DiskFull`, `StoreError`: the attempt is lost then. More output than is kept fails the
        task, whose beginning is kept.
        """
        data, ended = await live.head(INLINE_BYTES)
        if live.handed_over:
            await self._keep_stdout(live, data)
            if not ended:
                async for chunk in live.rest():
                    await self._keep_stdout(live, chunk)
        try:
            ending = await live.finish()
        except SchedulerError as error:
            raise live.stderr_error or error from None
        try:
            if live.stderr_error is not None:
                raise live.stderr_error
            if not ending.handed_over:
                await self._stdout.write(ending.stdout)
                await self._stderr.write(ending.stderr[: self._limits.stderr_max_bytes])
            files = await self._files(live, ending)
        finally:
            close_files(ending)
        return Results(await self._stdout.finish(), await self._stderr.finish(), files)

    async def abort(self) -> None:
        """Throw away what was written. Never raises: what stays is swept up later."""
        for writer in self._writers:
            try:
                await writer.abort()
            except (SchedulerError, OSError):
                continue

    async def _keep_stdout(self, live: LiveTask, data: bytes) -> None:
        # Over the limit the task is killed; what still comes is read and dropped, so that it can end.
        if self._too_large:
            return
        room = self._limits.stdout_max_bytes - self._stdout.size_bytes
        if len(data) > room:
            self._too_large = True
            live.kill(Reason.OUTPUT_TOO_LARGE)
        if room > 0 and data:
            await self._stdout.write(data[:room])

    async def _files(self, live: LiveTask, ending: Ending) -> dict[str, Body]:
        files: dict[str, Body] = {}
        missing: list[str] = []
        for path, fd in zip(live.task.spec.outputs, ending.files, strict=False):
            if fd < 0:
                missing.append(f"{path}: {os.strerror(-fd)}")
            elif (size_bytes := os.fstat(fd).st_size) > self._limits.file_max_bytes:
                missing.append(
                    f"{path}: its {size_bytes} bytes are more than the {self._limits.file_max_bytes} that are kept"
                )
            else:
                body = files[path] = await self._copy(fd, size_bytes)
                live.task.files[path] = body.size_bytes
        if missing:
            said = f"{live.task.detail}; " if live.task.detail else ""
            live.task.detail = (said + "output not kept: " + "; ".join(missing))[:DETAIL_CHARS]
        return files

    async def _copy(self, fd: int, size_bytes: int) -> Body:
        if not size_bytes:
            return EMPTY
        writer = self._blobs.body()
        self._writers.append(writer)
        while writer.size_bytes < size_bytes:
            chunk = await _read(fd, min(COPY_BYTES, size_bytes - writer.size_bytes))
            if not chunk:
                break
            await writer.write(chunk)
        return await writer.finish()


async def _read(fd: int, count: int) -> bytes:
    """Read in a thread; it is waited for in any case, since the descriptor's number may be another's afterwards."""
    reading = asyncio.ensure_future(asyncio.to_thread(os.read, fd, count))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait({reading})
        raise
