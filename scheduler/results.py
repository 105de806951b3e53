"""Collects what an async task leaves: its outputs and its files, into the store's bodies."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

from scheduler.errors import DiskFull
from scheduler.execution import Ending
from scheduler.live import LiveTask, close_files
from scheduler.store.contract import EMPTY, INLINE_BYTES, Blobs, Body, BodyWriter, Results
from scheduler.task import Reason

COPY_BYTES = 1 << 20


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

    def keep(self) -> dict[str, Any]:
        """What the live task needs to keep stderr."""
        return {"stderr_writer": self._stderr, "stderr_max_bytes": self._limits.stderr_max_bytes}

    async def collect(self, live: LiveTask) -> Results:
        """Read all output, wait for the end, keep the files. Raises `SlotLost`, `DiskFull`."""
        data, ended = await live.head(INLINE_BYTES)
        if not ended:
            await self._keep_stdout(live, data)
            async for chunk in live.rest():
                await self._keep_stdout(live, chunk)
        ending = await live.finish()
        try:
            if ended:
                await self._stdout.write(data)
            if not ending.handed_over:
                await self._stderr.write(ending.stderr[: self._limits.stderr_max_bytes])
            files = await self._files(live, ending)
        finally:
            close_files(ending)
        return Results(await self._stdout.finish(), await self._stderr.finish(), files)

    async def abort(self) -> None:
        for writer in self._writers:
            await writer.abort()

    async def _keep_stdout(self, live: LiveTask, data: bytes) -> None:
        # Over the limit the task is killed; what still comes is read and dropped, so that it can end.
        if self._stdout.size_bytes + len(data) > self._limits.stdout_max_bytes:
            live.kill(Reason.OUTPUT_TOO_LARGE)
            return
        try:
            await self._stdout.write(data)
        except DiskFull:
            live.kill(Reason.OUTPUT_TOO_LARGE)
            raise

    async def _files(self, live: LiveTask, ending: Ending) -> dict[str, Body]:
        files: dict[str, Body] = {}
        for path, fd in zip(live.task.spec.outputs, ending.files, strict=False):
            if fd >= 0 and os.fstat(fd).st_size <= self._limits.file_max_bytes:
                body = files[path] = await self._copy(fd)
                live.task.files[path] = body.size_bytes
        return files

    async def _copy(self, fd: int) -> Body:
        size = os.fstat(fd).st_size
        if not size:
            return EMPTY
        writer = self._blobs.body()
        self._writers.append(writer)
        while chunk := await asyncio.to_thread(os.read, fd, COPY_BYTES):
            await writer.write(chunk)
        return await writer.finish()
