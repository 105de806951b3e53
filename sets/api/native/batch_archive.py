"""The results of a batch as a tar archive, made while it is sent, in the order in which the tasks ended."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from scheduler.batches.batches import Batches
from scheduler.batches.item import ERROR_END, FILES_END
from scheduler.errors import SchedulerError
from scheduler.manager import Manager
from scheduler.store.contract import Body
from scheduler.task import State, Task
from sets.api.errors import AnswerBrokenOff, ResultGone
from sets.api.native.view import task_json
from sets.api.results import TaskResults

PAGE: Final = 100
"""How many tasks are read from the store at a time."""
CURSOR: Final = "after="
"""Beginning of the comment of the last entry of each task; the rest is what the query parameter `after` takes."""
_END: Final = bytes(2 * tarfile.BLOCKSIZE)


class BatchArchive:
    """Writes the results of batches. A task that succeeded has an entry of its name with its standard output, and one
    for each output file, below NAME.files; another has NAME.error.json, which is the task's JSON."""

    def __init__(self, manager: Manager, batches: Batches, set_name: str) -> None:
        self._manager = manager
        self._batches = batches
        self._results = TaskResults(manager)
        self._set_name = set_name

    async def first(self, account: str, batch_id: str, after: int) -> list[tuple[int, Task]]:
        """The first tasks of an archive, for `write`. Raises `BatchUnknown` and `StoreError`."""
        return await self._batches.ended(account, batch_id, after, PAGE)

    async def write(self, account: str, batch_id: str, page: list[tuple[int, Task]]) -> AsyncIterator[bytes]:
        """The archive of the tasks that have ended, from those of `page` on. Raises `AnswerBrokenOff`."""
        try:
            while page:
                for place, task in page:
                    async for piece in self._entries(place, task):
                        yield piece
                page = await self._batches.ended(account, batch_id, page[-1][0], PAGE)
            yield _END
        except (SchedulerError, ResultGone) as error:
            raise AnswerBrokenOff(f"results of batch {batch_id}: {error}") from error

    async def _entries(self, place: int, task: Task) -> AsyncIterator[bytes]:
        name, comment = task.spec.name or task.id, f"{CURSOR}{place}"
        if task.state is not State.SUCCEEDED:
            failure = msgspec.json.encode(task_json(task, self._set_name, None))
            yield _header(name + ERROR_END, len(failure), task, comment) + _padded(failure)
            return
        results = await self._manager.results(task.id)
        if results is None:
            raise ResultGone(f"the results of task {task.id} are no longer kept")
        bodies = {name + FILES_END + path: body for path, body in results.files.items()}
        bodies[name] = results.stdout
        # Its standard output comes last: with it, all of the task has come.
        for entry, body in bodies.items():
            header = _header(entry, body.size_bytes, task, comment if entry == name else None)
            async for piece in self._entry(header, body):
                yield piece

    async def _entry(self, header: bytes, body: Body) -> AsyncIterator[bytes]:
        found = self._results.read(body, 0, body.size_bytes)
        if isinstance(found, bytes):
            yield header + _padded(found)
            return
        yield header
        async for piece in found:
            yield piece
        yield bytes(-body.size_bytes % tarfile.BLOCKSIZE)


def _header(name: str, size_bytes: int, task: Task, comment: str | None) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    entry.mtime = (task.ended_us or 0) // 1_000_000
    if comment is not None:
        entry.pax_headers = {"comment": comment}
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)
