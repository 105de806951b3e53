"""Results of earlier tasks as inputs: what is refused before anything is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from scheduler.errors import BadRequest, TaskUnknown
from scheduler.manager import Manager
from scheduler.store.blobs import BlobStore
from sets.api.earlier_results import EarlierResults


class Nobody:
    """A manager without tasks. `asked`: the ids that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, account: str, task_id: str) -> Any:
        self.asked.append(task_id)
        raise TaskUnknown(f"no task {task_id} of this account")


@pytest.mark.parametrize("ids", [b"a-1\n" * 4, b"a-1\na-2\na-3\na-4", b"\n" * 1_000])
async def test_a_list_that_is_too_long_is_refused_as_a_whole(ids: bytes, tmp_path: Path) -> None:
    manager = Nobody()
    earlier = EarlierResults(cast(Manager, manager), 3)
    with pytest.raises(BadRequest, match="more than 3 lines; send it as several batches"):
        await earlier.copy("acme", ids, BlobStore(tmp_path).body(), lambda _: None)
    assert manager.asked == []


@pytest.mark.parametrize("ids", [b"a-1\na-2\na-3\n", b"a-1\n\na-3"])
async def test_as_many_lines_as_are_allowed_are_looked_up(ids: bytes, tmp_path: Path) -> None:
    manager = Nobody()
    earlier = EarlierResults(cast(Manager, manager), 3)
    with pytest.raises(BadRequest, match="line 1: no task a-1"):
        await earlier.copy("acme", ids, BlobStore(tmp_path).body(), lambda _: None)
    assert manager.asked == ["a-1"]
