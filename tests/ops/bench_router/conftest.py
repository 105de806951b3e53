"""The bench's own upstream and load programs, compiled once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.bench_router import programs
from ops.bench_router.load import Loader
from ops.bench_router.server import Server
from tests.ports import free_port


@pytest.fixture
def core() -> int:
    return min(os.sched_getaffinity(0))


@pytest.fixture
def loader(core: int, tmp_path: Path) -> Loader:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is missing (apt-get install wrk)")
    return Loader(core, tmp_path)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Server]:
    port = free_port()
    command = [str(programs.compiled("upstream")), str(port)]
    with Server("upstream", command, tmp_path, port) as server:
        yield server
