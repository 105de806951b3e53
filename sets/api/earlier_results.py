"""The results of earlier tasks as the inputs of a batch: copied into a tar archive, which becomes the batch's spool."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import Final

from scheduler.batches.item import plain_name
from scheduler.errors import BadRequest, TaskUnknown
from scheduler.manager import Manager
from scheduler.store.contract import BodyWriter
from scheduler.task import State, Task
from sets.api.errors import NotFinished, ResultGone
from sets.api.results import TaskResults

IDS_BYTES: Final = 8 << 20
"""Most bytes of a list of ids: more than 100,000 of them."""
ID_CHARS: Final = 64
"""Longest line of such a list."""


class EarlierResults:
    """Copies the standard outputs of tasks that succeeded. A batch needs none of these tasks once it is taken.

    `most_lines`: the longest list of ids, empty lines included.
    """

    def __init__(self, manager: Manager, most_lines: int) -> None:
        self._manager = manager
        self._most_lines = most_lines
        self._results = TaskResults(manager)

    async def copy(self, account: str, ids: bytes, writer: BodyWriter, grow: Callable[[int], None]) -> None:
        """Write the archive of the tasks that `ids` names, one in each line; `grow` is told each size before.

        An input has the name of its task, or its id if the name is no input's or was used before. Raises `BadRequest`
        that says which line is wrong, `StorageLimit`, `StoreError` and `DiskFull`.
        """
        # Before anything is copied, and before a list of empty lines holds up all others.
        if ids.count(b"\n", 0, -1) >= self._most_lines:
            raise BadRequest(
                f"the list of ids has more than {self._most_lines} lines; send it as several batches",
                field="body",
            )
        names: set[str] = set()
        lines: dict[str, int] = {}
        for number, line in enumerate(ids.split(b"\n"), 1):
            text = line.strip()
            if not text:
                continue
            task_id = text[:ID_CHARS].decode("ascii", "replace")
            if lines.setdefault(task_id, number) != number:
                raise BadRequest(
                    f"line {number}: task {task_id} is in line {lines[task_id]}, too; name each task once",
                    field="body",
                )
            try:
                task = await self._manager.get(account, task_id)
                if task.state is not State.SUCCEEDED and task.ended:
                    raise BadRequest(
                        f"line {number}: task {task_id} is {task.state}, so it has no result", field="body"
                    )
                body = (await self._results.stdout(account, task_id)).body
            except (TaskUnknown, NotFinished, ResultGone) as error:
                raise BadRequest(f"line {number}: {error}", field="body") from None
            name = _name(task, names)
            names.add(name)
            entry = tarfile.TarInfo(name)
            entry.size = body.size_bytes
            header = entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
            padding = bytes(-body.size_bytes % tarfile.BLOCKSIZE)
            grow(len(header) + body.size_bytes + len(padding))
            await writer.write(header)
            found = self._results.read(body, 0, body.size_bytes)
            if isinstance(found, bytes):
                await writer.write(found)
            else:
                async for piece in found:
                    await writer.write(piece)
            await writer.write(padding)
        await writer.write(bytes(2 * tarfile.BLOCKSIZE))


def _name(task: Task, used: set[str]) -> str:
    if task.spec.name is None or task.spec.name in used:
        return task.id
    try:
        return plain_name(task.spec.name, "")
    except BadRequest:
        return task.id
