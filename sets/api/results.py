"""The results of ended tasks: their output and files, as far as they are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from scheduler.errors import StoreError
from scheduler.following import Which
from scheduler.manager import Manager
from scheduler.source import Source
from scheduler.store.contract import Body
from scheduler.task import Kind, Task
from sets.api.errors import FileUnknown, NotFinished, ResultGone
from sets.api.following import FollowedAnswer

_GONE: Final = "its results are no longer kept"


class KeptBody(NamedTuple):
    """A body that is kept. `missing_bytes`: how many more bytes the task wrote; `attempt`: the start that wrote it."""

    body: Body
    missing_bytes: int = 0
    attempt: int = 0


class TaskResults:
    """Finds and reads the results of an account's tasks.

    Methods that take a task's id raise `TaskUnknown`, also for another account's task, `NotFinished` and `ResultGone`.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def stdout(self, account: str, task_id: str) -> KeptBody:
        task = await self._ended(account, task_id)
        if task.spec.kind is Kind.SYNC:
            raise ResultGone("a sync task's stdout is its answer; it is not kept")
        results = await self._manager.results(task_id)
        return _kept(results.stdout if results else None, task, task.stdout_bytes)

    async def stderr(self, account: str, task_id: str) -> KeptBody:
        task = await self._ended(account, task_id)
        if task.spec.kind is Kind.SYNC:
            kept = task.stderr_head + task.stderr_tail
            if task.stderr_bytes > len(kept):
                raise ResultGone(
                    f"of a sync task's stderr ({task.stderr_bytes} bytes) only its beginning and its end are kept: "
                    "stderr_head and stderr_tail of the task"
                )
            return _kept(Body(len(kept), kept), task, task.stderr_bytes)
        results = await self._manager.results(task_id)
        return _kept(results.stderr if results else None, task, task.stderr_bytes)

    async def follow(
        self, account: str, task_id: str, which: Which, *, so_far: bool
    ) -> FollowedAnswer | None:
        """An output of a task that waits or runs; None once it has ended. Raises as `Followers.follow`."""
        follower = await self._manager.followers.follow(account, task_id, which, so_far=so_far)
        return None if follower is None else FollowedAnswer(follower)

    async def file(self, account: str, task_id: str, path: str) -> KeptBody:
        """An output file by its absolute path in the container. Raises `FileUnknown`, too."""
        task = await self._ended(account, task_id)
        results = await self._manager.results(task_id)
        if results is None or path not in results.files:
            kept = ", ".join(results.files) if results is not None and results.files else "none"
            detail = f"task {task.id} left no file {path[:200]}; its files: {kept[:1000]}"
            if task.detail:
                detail += f"; of the task: {task.detail}"
            raise FileUnknown(detail)
        return KeptBody(results.files[path])

    def read(self, body: Body, first: int, length: int) -> bytes | AsyncIterator[bytes]:
        """`length` bytes of a kept body, from byte `first` on: at once, or in pieces. Raises `ResultGone`."""
        if body.inline is not None:
            return body.inline[first : first + length]
        assert body.blob is not None
        try:
            source = self._manager.open_blob(body.blob)
        except StoreError as error:
            raise ResultGone(_GONE) from error
        return _pieces(source, first, length)

    async def _ended(self, account: str, task_id: str) -> Task:
        task = await self._manager.get(account, task_id)
        if not task.ended:
            raise NotFinished(task)
        return task


def _kept(body: Body | None, task: Task, written_bytes: int) -> KeptBody:
    if body is None:
        raise ResultGone(_GONE)
    return KeptBody(body, max(0, written_bytes - body.size_bytes), task.lease_number)


async def _pieces(source: Source, first: int, length: int) -> AsyncIterator[bytes]:
    try:
        async for piece in source.pieces(first, length):
            yield piece
    finally:
        source.close()
