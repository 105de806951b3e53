"""A set's batches over the task manager of `tests.scheduler.conftest`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from scheduler.batch import Batch, BatchState, Format, state_of
from scheduler.batches.batches import Batches, BatchLimits, Progress
from scheduler.store.contract import Body, Idempotency
from scheduler.task import Kind, State
from tests.scheduler.conftest import PATIENCE_S, World


class BatchWorld(World):
    """A `World` with batches, whose limits are `batch_limits`."""

    batch_limits = BatchLimits()

    def make(self, **settings: Any) -> None:
        super().make(**settings)
        self.batches = Batches(
            self.batch_limits, self.manager, self.store.batches, self.blobs, self.launcher.images
        )
        self.manager._observer.task_ended = self.hear  # type: ignore[method-assign]

    def hear(self, task: Any) -> None:
        self.ended.tasks.append(task)
        self.batches.task_ended(task)

    async def open(self) -> BatchWorld:
        await super().open()
        await self.batches.open()
        return self

    async def close(self) -> None:
        if self.manager in self.open_managers:
            await self.batches.close()
        await super().close()

    # -- what a client does

    async def spool(self, data: bytes) -> Body:
        writer = self.blobs.body()
        await writer.write(data)
        return await writer.finish()

    async def send(
        self,
        data: bytes,
        form: Format = Format.LINES,
        *,
        idempotency: Idempotency | None = None,
        input_bytes: int = 1 << 30,
        **facts: Any,
    ) -> Batch:
        spec = self.spec(Kind.ASYNC, **facts)
        return await self.batches.submit(spec, form, await self.spool(data), input_bytes, idempotency)

    async def over(self, batch: Batch) -> Progress:
        progress = await self.batches.wait("acme", batch.id, PATIENCE_S)
        assert progress.batch.ended_us is not None, progress
        return progress

    async def succeeded(self, batch: Batch) -> Progress:
        progress = await self.over(batch)
        assert state_of(progress.batch, progress.counts) is BatchState.SUCCEEDED, progress
        assert progress.counts.states == {State.SUCCEEDED: batch.inputs}
        return progress

    async def outputs(self, batch: Batch) -> dict[str | None, bytes]:
        """The output of each task of a batch, by name, in the order of their ends."""
        found = await self.batches.ended("acme", batch.id, 0, 100_000)
        assert [place for place, _ in found] == sorted({place for place, _ in found})
        return {task.spec.name: await self.stdout(task) for _, task in found}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[BatchWorld]:
    """An open world with batches."""
    world = BatchWorld(tmp_path)
    await world.open()
    yield world
    await world.close()


def lines(*items: object) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def numbered(count: int) -> bytes:
    return lines(*({"input": f"{number}"} for number in range(1, count + 1)))


def tar(files: Iterable[tuple[str | tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of files by name, or of entries of other kinds."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name) if isinstance(name, str) else name
            if entry.isreg():
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()
