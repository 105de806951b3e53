"""Output files as slots hand them over, and as the task manager keeps them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.source import OpenFile
from scheduler.task import Task

if TYPE_CHECKING:
    from tests.scheduler.conftest import World

SMALL = b"small"
LARGE = os.urandom(100_000)
PATHS = ("/tmp/small", "/tmp/large")


class Folder:
    """Files as a slot hands them over."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, name: str, data: bytes) -> OpenFile:
        (self.path / name).write_bytes(data)
        return OpenFile(os.open(self.path / name, os.O_RDONLY))

    def both(self) -> list[OpenFile]:
        return [self.open("small", SMALL), self.open("large", LARGE)]

    @property
    def still_open(self) -> set[str]:
        held = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
        return {name for name in os.listdir(self.path) if str(self.path / name) in held}


async def content(world: World, task: Task, path: str) -> bytes:
    results = await world.manager.results(task.id)
    assert results is not None
    body = results.files[path]
    data = body.inline if body.blob is None else world.blobs.path(body.blob).read_bytes()
    assert data is not None
    assert len(data) == body.size_bytes == task.files[path]
    return data
