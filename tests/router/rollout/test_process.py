"""A release in real router processes: ordered over the admin address, through a `kill -9`, by two instances at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from router.config.reader import load
from router.rollout.orders import Order, give
from router.rollout.statefile import StateFile
from tests.router.rig import Client
from tests.router.test_server import Process, router, sets, yaml

SECTION = """rollout:
  set: b
  steps: [{weight: 40, hold: 1h}]
  abort_when: {min_requests: 40}
"""


async def order(running: Process, verb: str, **words: str) -> tuple[int, dict[str, Any]]:
    body = json.dumps(words).encode()
    client = Client(*await asyncio.open_connection("127.0.0.1", running.admin_port))
    try:
        answer = await client.ask(
            b"POST /rollout/%b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (verb.encode(), len(body), body)
        )
        return answer.status, json.loads(answer.body)
    finally:
        client.close()


async def rollout(running: Process) -> dict[str, Any]:
    return dict(json.loads((await running.admin("/rollout")).body))


async def until(running: Process, **wanted: object) -> dict[str, Any]:
    for _ in range(1200):
        status = await rollout(running)
        if all(status[name] == value for name, value in wanted.items()):
            return status
        await asyncio.sleep(0.05)
    raise AssertionError((wanted, status))


async def until_seen(running: Process, requests: int) -> dict[str, Any]:
    """Wait until a step has been held for a while, and the release has seen so many requests of the canary."""
    for _ in range(1200):
        status = await rollout(running)
        if status["requests"]["canary"] >= requests and status["held_s"] > 0:
            return status
        await asyncio.sleep(0.05)
    raise AssertionError((requests, status))


async def answered_by(running: Process, count: int) -> dict[str, int]:
    client = await running.client()
    found: dict[str, int] = {}
    for number in range(count):
        answer = await client.ask(b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u%d\r\n\r\n" % number)
        name = answer.headers["x-set"]
        found[name] = found.get(name, 0) + 1
    client.close()
    return found


async def test_a_release_survives_kill_9_and_a_dead_router_can_be_told_to_abort(tmp_path: Path) -> None:
    config, state = tmp_path / "router.yaml", tmp_path / "state"
    state.mkdir()
    async with sets("a", "b") as fakes:
        config.write_text(yaml({n: fake.port for n, fake in fakes.items()}, 1, {"a": 100, "b": 0}) + SECTION)
        async with router(config, state) as running:
            assert await answered_by(running, 100) == {"a": 100}
            status, said = await order(running, "resume")
            assert (status, said["status"]) == (409, 409)
            status, said = await order(running, "start", by="ops", why="new release")
            assert (status, said["phase"], said["effective"]) == (200, "holding", {"a": 60.0, "b": 40.0})
            shares = await answered_by(running, 200)
            assert 50 <= shares["b"] <= 110
            seen = await until_seen(running, shares["b"])
            assert seen["requests"]["canary"] == shares["b"], "every request of the canary was counted, once"
            os.kill(running.process.pid, signal.SIGKILL)
            await running.process.wait()
        async with router(config, state) as running:
            assert await answered_by(running, 200) == shares, "the same users are where they were"
            again = await until(running, leader=True, phase="holding")
            assert again["epoch"] > seen["epoch"]
        # With no router at all, by the command line's way.
        table = load(config.read_bytes()).table
        give(StateFile(state / "r9.rollout"), Order.ABORT, table, by="ops")
        async with router(config, state) as running:
            assert await answered_by(running, 200) == {"a": 200}
            assert (await rollout(running))["phase"] == "aborted"


async def test_two_instances_release_together_under_one_leader(tmp_path: Path) -> None:
    config, state = tmp_path / "router.yaml", tmp_path / "state"
    state.mkdir()
    async with sets("a", "b") as fakes:
        config.write_text(yaml({n: fake.port for n, fake in fakes.items()}, 1, {"a": 100, "b": 0}) + SECTION)
        async with router(config, state) as first, router(config, state) as second:
            await order(first, "start")
            await until(second, phase="holding", effective={"a": 60.0, "b": 40.0})
            assert await answered_by(first, 100) == await answered_by(second, 100)
            for _ in range(1200):
                leaders = [(await rollout(each))["leader"] for each in (first, second)]
                if sum(leaders) == 1:
                    break
                await asyncio.sleep(0.05)
            assert sum(leaders) == 1
            leader, follower = (first, second) if leaders[0] else (second, first)
            expected = (await rollout(leader))["effective"]
            os.kill(leader.process.pid, signal.SIGKILL)
            await leader.process.wait()
            status = await until(follower, leader=True)
            assert status["effective"] == expected
            _, said = await order(follower, "abort", why="odd answers")
            assert said["effective"] == {"a": 100.0, "b": 0.0}
            assert await answered_by(follower, 100) == {"a": 100}
