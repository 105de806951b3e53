"""Fixtures of the executor's tests: both event loops, and a count of this process's descriptors."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from sets.executor.executor import LocalExecutor
from tests.sets.executor.guests import Owner, Peer, StartPeer
from tests.sets.executor.scripted import Rig


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Everything holds on both: sets run on uvloop, other programs may not."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def open_fds() -> dict[int, str]:
    """This process's descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


FdCheck = Callable[[], None]


@pytest.fixture
def no_fd_leaks() -> Iterator[FdCheck]:
    """Check that the test leaves no more descriptors than it found. Request it after every fixture that opens some."""
    # uvloop opens a pair for signals when it first runs in a process.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))
    gc.collect()
    before = open_fds()

    def check() -> None:
        gc.collect()
        more = {fd: what for fd, what in open_fds().items() if before.get(fd) != what}
        assert len(open_fds()) <= len(before), more

    yield check
    check()


@pytest.fixture
async def rig(no_fd_leaks: FdCheck) -> AsyncIterator[Rig]:
    """A slot that is connected to its scripted guest."""
    rig = Rig()
    yield rig.connect()
    rig.close()


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
async def executor(tmp_path: Path, owner: Owner) -> AsyncIterator[LocalExecutor]:
    executor = LocalExecutor(tmp_path / "slots")
    await executor.open(owner)
    yield executor
    await executor.close()
    assert not (tmp_path / "slots").exists()


@pytest.fixture
async def start_peer() -> AsyncIterator[StartPeer]:
    peers: list[Peer] = []

    async def start(directory: Path, *, init: bool = True) -> Peer:
        peers.append(await Peer.start(directory, init=init))
        return peers[-1]

    yield start
    for peer in peers:
        await peer.stop()


@pytest.fixture
def logged() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines
