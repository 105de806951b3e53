"""Inputs that hardly come: they hold no slot that others wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler.policy.limits import Limits
from scheduler.task import Kind, Reason, State
from sets.api import upload
from sets.api.accounts import Accounts
from sets.api.body import RequestBody
from sets.api.call import RunCall
from sets.api.errors import BodyCutOff, BodyTooSlow
from sets.api.runs import Runs, SyncRun
from sets.config import SetConfig
from tests.scheduler.conftest import World, until
from tests.scheduler.fakes import CAT

ONE_CORE = Limits(cpu_percent=100, start_backoff_s=0.01, patience_s=0.05)


class Trickle:
    """A client that sends a piece whenever the test says so."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.body = RequestBody(self._pieces.get)

    def send(self, data: bytes, *, last: bool = False) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": data, "more_body": not last})

    def vanish(self) -> None:
        self._pieces.put_nowait({"type": "http.disconnect"})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    world.make(limits=ONE_CORE)
    await world.open()
    yield world
    await world.close()


@pytest.fixture
def call(world: World) -> Callable[[RequestBody], asyncio.Task[SyncRun]]:
    """Begins a call with a body of unknown length."""
    runs = Runs(world.manager, Accounts(SetConfig(name="t", state_dir="x", max_input_mib=1)), world.blobs)

    async def run(body: RequestBody) -> SyncRun:
        return await runs.run(await runs.accept("acme", CAT.reference, RunCall(), Kind.SYNC, None), body)

    return lambda body: asyncio.create_task(run(body))


Call = Callable[[RequestBody], "asyncio.Task[SyncRun]"]


async def test_a_client_that_sends_nothing_gets_no_slot(world: World, call: Call) -> None:
    silent = Trickle()
    calling = call(silent.body)
    # Others have the only core meanwhile.
    other = world.begin(b"now", account="other")
    (await world.started()).exit(0, b"done")
    assert (await other)[1] == b"done"
    assert len(world.executor.runs) == 1
    silent.vanish()
    with pytest.raises(BodyCutOff) as caught:
        await calling
    assert not caught.value.executed
    world.assert_nothing_left()


async def test_an_upload_that_hardly_comes_ends_once_others_wait(
    world: World, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PATIENCE_S", 0.01)
    monkeypatch.setattr(upload, "LOOK_AGAIN_S", 0.01)
    slow = Trickle()
    calling = call(slow.body)
    slow.send(b"a")
    program = await world.started()
    waits = world.clock() + 5 * upload.PATIENCE_S
    await until(lambda: world.clock() > waits)
    # Nobody else wants its core, so it may take its time.
    assert not program.killed
    other = world.begin(b"now", account="other")
    with pytest.raises(BodyTooSlow) as caught:
        await calling
    assert caught.value.executed
    assert "1 bytes came" in str(caught.value)
    (await world.started(2)).exit(0, b"done")
    assert (await other)[1] == b"done"
    await world.settled()
    slow_task = await world.manager.get("acme", program.lease.task_id)
    assert (slow_task.state, slow_task.reason) == (State.CANCELLED, Reason.CLIENT_GONE)
    world.assert_nothing_left()


async def test_the_accounts_own_waiting_tasks_end_no_upload(
    world: World, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PATIENCE_S", 0.01)
    monkeypatch.setattr(upload, "LOOK_AGAIN_S", 0.01)
    slow = Trickle()
    calling = call(slow.body)
    slow.send(b"a")
    program = await world.started()
    mine = world.begin(b"mine")
    waits = world.clock() + 5 * upload.PATIENCE_S
    await until(lambda: world.clock() > waits)
    assert not program.killed
    slow.send(b"b", last=True)
    assert program.stdin is not None
    stdin = program.stdin
    await until(lambda: stdin.closed)
    program.exit(0, bytes(stdin.data))
    run = await calling
    assert run.head == b"ab"
    await run.finish()
    (await world.started(2)).exit()
    await mine
    world.assert_nothing_left()


async def test_an_upload_that_comes_fast_enough_goes_on_though_others_wait(
    world: World, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PATIENCE_S", 0.01)
    monkeypatch.setattr(upload, "LOOK_AGAIN_S", 0.01)
    # One byte is worth an hour.
    monkeypatch.setattr(upload, "LEAST_BYTES_PER_S", 1 / 3600)
    client = Trickle()
    calling = call(client.body)
    client.send(b"a")
    program = await world.started()
    other = world.begin(b"now", account="other")
    waits = world.clock() + 5 * upload.PATIENCE_S
    await until(lambda: world.clock() > waits)
    assert not program.killed
    client.send(b"", last=True)
    assert program.stdin is not None
    stdin = program.stdin
    await until(lambda: stdin.closed)
    program.exit(0, b"out")
    assert (await calling).head == b"out"
    await (await calling).finish()
    (await world.started(2)).exit()
    await other
    world.assert_nothing_left()
