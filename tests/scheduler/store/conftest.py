"""Stores to test: the contract's suite runs over every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from scheduler.store.contract import Store
from scheduler.store.sqlite import SqliteStore

OpenStore = Callable[[], Store]


@pytest.fixture(params=["sqlite"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Makes unopened stores that share one place, as the processes of one set after each other do."""
    return lambda: SqliteStore(tmp_path / "store" / "tasks.db", min_free_mib=0)


@pytest.fixture
async def store(new_store: OpenStore) -> AsyncIterator[Store]:
    store = new_store()
    await store.open()
    yield store
    await store.close()
