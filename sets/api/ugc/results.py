"""The results of a task as UGC's tar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from scheduler.manager import Manager
from scheduler.store.contract import Body, BodyWriter, Results
from scheduler.task import Task
from sets.api.errors import ResultGone
from sets.api.results import TaskResults
from sets.api.ugc.codes import RetCode, UgcError
from sets.api.ugc.tar import Member, archive, header, path_in_tar, size_of

STDOUT: Final = "Stdout"
STDERR: Final = "Stderr"
_PIECE_BYTES: Final = 1 << 18


class UgcResults:
    """Makes archives of what ended tasks left; nothing of them is held in memory but small outputs."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._results = TaskResults(manager)

    async def of_kept(self, task: Task) -> tuple[int, AsyncIterator[bytes]]:
        """The size and the pieces of the archive of an async task that succeeded. Raises `UgcError`."""
        results = await self._manager.results(task.id)
        if results is None:
            raise UgcError(
                RetCode.TASK_NOT_FOUND, f"TaskId: the results of task {task.id} are no longer kept"
            )
        outputs = [self._member(STDOUT, results.stdout), self._member(STDERR, results.stderr)]
        return self._archive(task, outputs, results)

    async def of_sync(self, task: Task, stdout: BodyWriter) -> tuple[int, AsyncIterator[bytes]]:
        """Likewise of a sync task, whose output the caller has spooled. Of its stderr the beginning and the end are
        kept."""
        stderr = task.stderr_head + task.stderr_tail
        if task.stderr_bytes > len(stderr):
            cut = f"\n[{task.stderr_bytes - len(stderr)} bytes are left out]\n".encode()
            stderr = task.stderr_head + cut + task.stderr_tail
        results = await self._manager.results(task.id) if task.files else None
        first = Member(STDOUT, stdout.size_bytes, partial(_spooled, stdout))
        return self._archive(task, [first, self._member(STDERR, Body(len(stderr), stderr))], results)

    def _archive(
        self, task: Task, members: list[Member], results: Results | None
    ) -> tuple[int, AsyncIterator[bytes]]:
        files = results.files if results is not None else {}
        members += [self._member(path_in_tar(path), body) for path, body in files.items()]
        modified_s = (task.ended_us or 0) // 1_000_000
        for name, size_bytes, _ in members:
            # A name that does not fit is told before the archive begins.
            header(name, size_bytes, modified_s)
        return size_of(members), archive(members, modified_s)

    def _member(self, name: str, body: Body) -> Member:
        return Member(name, body.size_bytes, partial(self._pieces, body))

    async def _pieces(self, body: Body) -> AsyncIterator[bytes]:
        try:
            found = self._results.read(body, 0, body.size_bytes)
        except ResultGone as error:
            raise UgcError(RetCode.TASK_NOT_FOUND, str(error)) from error
        if isinstance(found, bytes):
            yield found
            return
        async for piece in found:
            yield piece


async def _spooled(writer: BodyWriter) -> AsyncIterator[bytes]:
    first = 0
    while piece := await writer.read(first, _PIECE_BYTES):
        yield piece
        first += len(piece)
