"""The output files of one attempt: copies those that its slot handed over into the store."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import Final, Protocol

from scheduler.errors import SchedulerError
from scheduler.execution import Ending, NoFile
from scheduler.policy.storage import Holding
from scheduler.source import SourceUnreadable
from scheduler.store.contract import Blobs, Body, BodyWriter, Results
from scheduler.task import Task

DETAIL_CHARS: Final = 2000
ACCOUNT_LEFT: Final = "what is left of the storage of its account in this set"
_WHY: Final = {
    errno.ENOENT: "there is no such file",
    errno.ELOOP: "its path has a symbolic link",
    errno.EINVAL: "it is not a regular file of the image or of a writable place",
    errno.EACCES: "the program's own user may not read it",
}


class FileLimits(Protocol):
    """Limits of output files: of one, and of all that one task leaves."""

    @property
    def file_max_bytes(self) -> int: ...
    @property
    def files_max_bytes(self) -> int: ...


class OutputFiles:
    """Copies the files at `paths` as they are when their task has ended, however it ended.

    A file that is missing, not a regular one or too large is not kept, and the task's detail says so; the program's own
    end decides the task's outcome. Holes count towards the limits, because they are sent as zeros, but take no disk.
    """

    def __init__(self, blobs: Blobs, limits: FileLimits, paths: Sequence[str], holding: Holding) -> None:
        self.bodies: dict[str, Body] = {}
        # What is copied is the account's; its owner releases it.
        self.holding = holding
        self._blobs = blobs
        self._limits = limits
        self._paths = paths
        self._refused: list[str] = []

    async def keep(self, ending: Ending) -> None:
        """Copy the files; the slot gets them back before the copies are synced. Raises `DiskFull` or `StoreError`; then
        nothing is kept."""
        writers: dict[str, BodyWriter] = {}
        try:
            try:
                await self._copy(ending, writers)
            finally:
                ending.close_files()
            for path, writer in writers.items():
                self.bodies[path] = await writer.finish()
        except BaseException:
            await _abort(list(writers.values()))
            await self.forget()
            raise

    async def forget(self) -> None:
        """Delete the files that were kept, because no row will name them. Never raises, as `_abort`."""
        blobs = [body.blob for body in self.bodies.values() if body.blob is not None]
        self.bodies = {}
        self.holding.release()
        with contextlib.suppress(SchedulerError, OSError):
            await self._blobs.delete(blobs)

    def tell(self, task: Task) -> None:
        """Write into the concluded task which files were kept, and which were not."""
        task.files = {path: body.size_bytes for path, body in self.bodies.items()}
        if self._refused:
            said = f"{task.detail}; " if task.detail else ""
            detail = said + "output not kept: " + "; ".join(self._refused)
            task.detail = detail if len(detail) <= DETAIL_CHARS else detail[: DETAIL_CHARS - 1] + "…"

    def results(self) -> Results:
        """Results of a task that left nothing."""
        return Results(files=self.bodies)

    async def _copy(self, ending: Ending, writers: dict[str, BodyWriter]) -> None:
        # A slot that died handed nothing over.
        left_bytes = self._limits.files_max_bytes
        for path, file in zip(self._paths, ending.files, strict=False):
            if path in writers:
                # The same path was asked for twice.
                continue
            if isinstance(file, NoFile):
                self._refuse(path, _WHY.get(file.errno) or os.strerror(file.errno))
                continue
            size_bytes = file.size_bytes
            if size_bytes > self._limits.file_max_bytes:
                most = f"the {self._limits.file_max_bytes} that are kept of a file"
                self._refuse(path, f"its {size_bytes} bytes are more than {most}")
            elif size_bytes > left_bytes:
                most = f"what is left of the {self._limits.files_max_bytes} that are kept of a task's files"
                self._refuse(path, f"its {size_bytes} bytes are more than {most}")
            elif not self.holding.try_grow(size_bytes):
                self._refuse(path, f"its {size_bytes} bytes are more than {ACCOUNT_LEFT}")
            else:
                writer = self._blobs.body(size_bytes)
                try:
                    # Nothing runs in its container by now, so a file that cannot be read is the slot's fault.
                    await writer.write_source(file)
                except SourceUnreadable as error:
                    await _abort([writer])
                    self._refuse(path, str(error))
                except BaseException:
                    await _abort([writer])
                    raise
                else:
                    writers[path] = writer
                    left_bytes -= size_bytes

    def _refuse(self, path: str, why: str) -> None:
        self._refused.append(f"{path}: {why}")


async def _abort(writers: list[BodyWriter]) -> None:
    """Never raises: files that stay are swept up later."""
    for writer in writers:
        try:
            await writer.abort()
        except (SchedulerError, OSError):
            continue
