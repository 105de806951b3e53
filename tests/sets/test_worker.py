"""A worker's end: what runs is answered, what was answered is sent, and nothing holds it up for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from sets.worker import DRAIN_POLL_S, SetWorker
from tests.sets.http.wire import EchoWorker, Talk

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"


class Clock:
    """The worker's loop, of which it asks only the time."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s


class Drained:
    draining = False

    def drain(self) -> None:
        self.draining = True


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What gunicorn's own part of the end was told."""
    told: list[str] = []

    async def shut_down(self: Any) -> None:
        told.append("closed")

    monkeypatch.setattr(gasgi.ASGIWorker, "_shutdown", shut_down)
    return told


def worker_of(serving: EchoWorker, drain_timeout_s: float, notice_s: float = 0.0) -> SetWorker:
    worker: SetWorker = SetWorker.__new__(SetWorker)
    worker.loop = serving.loop
    worker.connections = serving.connections
    worker.asgi = Drained()
    worker._drain_timeout_s = drain_timeout_s
    worker._drain_notice_s = notice_s
    serving.alive = False
    return worker


async def test_half_a_body_a_waiting_request_and_a_slow_reader_are_waited_for(ended: list[str]) -> None:
    serving = EchoWorker()
    idle, half, pipelined, slow = (Talk(serving) for _ in range(4))
    await half.say(HALF)
    await pipelined.say(HALF + b"def")
    await slow.say(GET)
    slow.wire.unsent_bytes = 10
    worker = worker_of(serving, 60)
    end = asyncio.create_task(worker._shutdown())
    await asyncio.sleep(0.2)
    assert (ended, worker.asgi.draining, end.done()) == ([], True, False)
    await half.say(b"defghi")
    await pipelined.say(b"ghi" + GET)
    # What waits behind the last answer is not executed; its client may send it elsewhere.
    assert (half.statuses(), pipelined.statuses()) == ([204], [204])
    await asyncio.sleep(0.2)
    assert ended == []
    slow.wire.unsent_bytes = 0
    async with asyncio.timeout(60):
        await end
    assert ended == ["closed"]
    await idle.settle()
    assert serving.nr_conns == 0


async def test_it_says_for_a_while_that_it_ends(ended: list[str]) -> None:
    serving = EchoWorker()
    idle = Talk(serving)
    worker = worker_of(serving, 60, notice_s=5)
    worker.loop = clock = Clock()
    end = asyncio.create_task(worker._shutdown())
    await idle.settle()
    assert worker.asgi.draining
    clock.now_s = 4
    await asyncio.sleep(2 * DRAIN_POLL_S)
    await idle.say(GET)
    assert b"connection: close" in idle.wire.sent
    assert (ended, end.done()) == ([], False)
    clock.now_s = 5
    async with asyncio.timeout(60):
        await end
    assert ended == ["closed"]


@pytest.mark.parametrize("drain_timeout_s", [0.0, 0.1])
async def test_what_never_ends_is_ended(ended: list[str], drain_timeout_s: float) -> None:
    serving = EchoWorker()
    cancelled: list[str] = []

    async def works(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(scope["path"])

    serving.asgi = works
    talks = [Talk(serving) for _ in range(3)]
    await talks[0].say(HALF)
    await talks[1].say(GET * 5)
    talks[2].wire.unsent_bytes = 10
    async with asyncio.timeout(60):
        await worker_of(serving, drain_timeout_s)._shutdown()
    await talks[0].settle()
    assert (ended, cancelled, serving.nr_conns) == (["closed"], ["/a", "/a"], 0)
