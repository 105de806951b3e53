"""The rollout in a running data plane: real requests, a clock of ours, files, gates and webhooks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from router.rollout.runner import Runner
from router.rollout.statefile import StateUnreadable
from router.rollout.states import NotAllowed
from router.routing.plan import AbortWhen, Plan, Step
from router.routing.table import Table, Weights
from tests.router.rig import OK, Client, Conversation, FakeSet, Play, Rig, answering, eventually, running

TASK_FAILED = b"HTTP/1.1 200 OK\r\nX-Task-Id: b-1\r\nX-Exit-Code: 3\r\nContent-Length: 2\r\n\r\nok"
BROKEN = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno"
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b'Content-Length: 19\r\n\r\n{"executed": false}'
)
STEPS = (Step(5_000, 30.0), Step(9_000, 30.0))


@dataclass
class Release:
    """A runner on a rig's data plane; `turn` lets a second pass."""

    rig: Rig
    folder: Path
    plan: Plan
    clock: list[float] = field(default_factory=lambda: [1_000_000.0])
    runners: list[Runner] = field(default_factory=list)

    def runner(self) -> Runner:
        """Another worker; the rig's plane belongs to the last one."""
        made = Runner(self.rig.traffic, self.folder, self.file, clock=lambda: self.clock[0])
        self.runners.append(made)
        return made

    @property
    def file(self) -> Table:
        base = self.rig.traffic.table if not self.runners else self.runners[-1]._file
        return replace(base, rollout=self.plan)

    async def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock[0] += 1.0
            await self.runners[-1].turn()

    async def requests(self, count: int, client: Client | None = None, *, first: int = 0) -> None:
        """One request of each of so many users."""
        asking = client or await self.rig.client()
        for number in range(first, first + count):
            await asking.send(b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u%d\r\n\r\n" % number)
            await asking.answer()


@asynccontextmanager
async def releasing(
    folder: Path,
    canary: bytes = OK,
    *,
    steps: tuple[Step, ...] = STEPS,
    more: str = "",
    p95: float | None = 0.25,
    **plan: Any,
) -> AsyncIterator[Release]:
    plays = {"a": answering(OK), "b": answering(canary)}
    async with running(plays, weights={"a": 100, "b": 0}, more=more) as rig:
        release = Release(
            rig, folder, Plan("b", steps, AbortWhen(min_requests=40, p95_over_baseline=p95), **plan)
        )
        runner = release.runner()
        runner.follow(release.file)
        yield release
        for each in release.runners:
            await each.stop()


def served(release: Release) -> dict[str, int]:
    return {name: fake.connections and len(fake.requests) for name, fake in release.rig.sets.items()}


async def test_a_healthy_canary_takes_its_steps(tmp_path: Path) -> None:
    # Latency is real here, so a busy machine may hold the release up; what it judges is tested with made-up ones.
    async with releasing(tmp_path, p95=None) as release:
        runner = release.runners[0]
        await release.requests(50)
        assert served(release)["b"] == 0
        status = await runner.command("start", "ops", "new release")
        assert (status["phase"], status["effective"], status["weights"]) == (
            "holding",
            {"a": 50.0, "b": 50.0},
            {"a": 100.0, "b": 0.0},
        )
        client = await release.rig.client()
        for second in range(31):
            await release.requests(6, client, first=6 * second)
            await release.turn()
        assert 60 <= served(release)["b"] <= 120
        status = runner.status()
        assert (status["step"], status["effective"]) == (2, {"a": 10.0, "b": 90.0}), status["reason"]
        assert [event["kind"] for event in status["events"]] == ["started", "holding", "passed", "holding"]


@pytest.mark.parametrize(
    ("answer", "check"),
    [(BROKEN, "error rate"), (TASK_FAILED, "share of failed tasks")],
)
async def test_a_sick_canary_is_taken_back(tmp_path: Path, answer: bytes, check: str) -> None:
    async with releasing(tmp_path, answer) as release:
        runner = release.runners[0]
        await runner.command("start")
        await release.requests(120)
        await release.turn(2)
        status = runner.status()
        assert (status["phase"], status["effective"]) == ("aborted", {"a": 100.0, "b": 0.0})
        assert status["reason"].startswith(check)
        before = served(release)["b"]
        await release.requests(50)
        assert served(release)["b"] == before


async def test_what_happens_is_logged_once_and_loudly_where_somebody_should_come(tmp_path: Path) -> None:
    async with releasing(tmp_path, steps=(Step(5_000, 30.0), Step(None))) as release:
        runner = release.runners[0]
        with capture_logs() as lines:
            await runner.command("start", "ops", "new release")
            await release.turn(2)
            await runner.command("pause", "ops", "lunch")
            for _ in range(121):
                release.clock[0] += 4.0
                await release.turn()
        told = [
            (line["log_level"], line["kind"], line["canary"])
            for line in lines
            if line["event"] == "rollout event"
        ]
        assert told == [
            ("info", "started", "b"),
            ("info", "holding", "b"),
            ("warning", "paused", "b"),
            ("warning", "still paused", "b"),
        ]


async def test_a_canary_that_refuses_connections_is_taken_back_though_every_request_was_saved(
    tmp_path: Path,
) -> None:
    """Retries and health hide it from clients; from the release they do not."""
    async with releasing(tmp_path) as release:
        runner = release.runners[0]
        table = release.file
        sets = {**table.sets, "b": replace(table.sets["b"], port=1)}
        runner.follow(replace(table, sets=sets, default=Weights(sets, table.default.shares)))
        await runner.command("start")
        client = await release.rig.client()
        for number in range(120):
            await client.send(b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u%d\r\n\r\n" % number)
            assert (await client.answer()).status == 200
        await release.turn(2)
        assert runner.status()["phase"] == "aborted", runner.status()["checks"]


async def test_back_pressure_holds_back_and_does_not_abort(tmp_path: Path) -> None:
    async with releasing(tmp_path, FULL) as release:
        runner = release.runners[0]
        await runner.command("start")
        await release.requests(120)
        await release.turn(32)
        status = runner.status()
        assert (status["phase"], status["effective"]["b"]) == ("waiting", 50.0)
        assert "make room there" in status["reason"]


async def test_requests_of_rules_do_not_count(tmp_path: Path) -> None:
    more = "rules:\n  - {name: qa, when: {path: /x}, to: b}"
    async with releasing(tmp_path, BROKEN, more=more) as release:
        runner = release.runners[0]
        await runner.command("start")
        await release.requests(100)
        await release.turn(2)
        assert runner.status()["requests"] == {"canary": 0, "control": 0}


async def test_a_restart_continues_with_the_same_weights_before_the_first_request(tmp_path: Path) -> None:
    async with releasing(tmp_path) as release:
        await release.runners[0].command("start")
        await release.requests(100)
        await release.turn(10)
        await release.runners[0].stop()
        file = release.file
        release.rig.traffic.adopt(file)
        release.clock[0] += 600.0
        again = release.runner()
        assert release.rig.traffic.table.default.shares == {"a": 5_000, "b": 5_000}
        await release.turn(1)
        status = again.status()
        assert (status["phase"], status["leader"]) == ("holding", True)
        assert 8.0 <= status["held_s"] <= 16.0
        assert status["requests"]["canary"] > 30, "what was seen before the restart counts"


async def test_a_second_worker_follows_and_its_requests_count(tmp_path: Path) -> None:
    async with releasing(tmp_path) as release:
        leader = release.runners[0]
        await release.turn()
        plays = {"a": answering(OK), "b": answering(OK)}
        async with running(plays, weights={"a": 100, "b": 0}) as other:
            file = replace(other.traffic.table, rollout=release.plan)
            follower = Runner(other.traffic, tmp_path, file, clock=lambda: release.clock[0])
            await follower.command("start", "ops")
            await leader.turn()
            assert leader.status()["effective"]["b"] == follower.status()["effective"]["b"] == 50.0
            client = await other.client()
            await release.requests(100, client)
            release.clock[0] += 2.0
            await follower.turn()
            await release.turn(2)
            assert leader.status()["requests"]["canary"] >= 30
            assert (leader.status()["leader"], follower.status()["leader"]) == (True, False)
            await leader.stop()
            release.clock[0] += 2.0
            await follower.turn()
            assert follower.status()["leader"]
            await follower.stop()


async def test_a_manual_edit_pauses(tmp_path: Path) -> None:
    async with releasing(tmp_path) as release:
        runner = release.runners[0]
        await runner.command("start")
        await release.turn(3)
        table = release.file
        runner.follow(replace(table, version=9, default=Weights(table.sets, {"a": 8_000, "b": 2_000})))
        await release.turn()
        status = runner.status()
        assert (status["phase"], status["hands_off"], status["effective"]) == (
            "paused",
            True,
            {"a": 80.0, "b": 20.0},
        )
        assert (await runner.command("resume"))["effective"] == {"a": 50.0, "b": 50.0}


async def test_orders_that_do_not_fit_are_refused_in_words(tmp_path: Path) -> None:
    async with releasing(tmp_path) as release:
        runner = release.runners[0]
        assert runner.status()["orders"] == ["start"]
        with pytest.raises(NotAllowed, match="nothing to abort"):
            await runner.command("abort")
        with pytest.raises(NotAllowed, match="no order; known: start"):
            await runner.command("promote")
        assert (await runner.command("start"))["orders"] == ["pause", "abort", "skip"]


async def test_a_damaged_state_file_is_told_and_the_weights_stay(tmp_path: Path) -> None:
    async with releasing(tmp_path) as release:
        runner = release.runners[0]
        await runner.command("start")
        (tmp_path / "state.json").write_bytes(b"{")
        runner.start()
        await eventually(lambda: runner.error is not None)
        assert "damaged" in str(runner.status()["error"])
        assert runner.status()["effective"]["b"] == 50.0


async def test_a_damaged_state_file_gives_all_workers_the_same_weights(tmp_path: Path) -> None:
    """Those that run kept the rollout's weights, one that was started took the file's: two choices in one router."""
    async with releasing(tmp_path) as release:
        await release.runners[0].command("start")
        (tmp_path / "state.json").write_bytes(b"{")
        release.runner()
        for runner in release.runners:
            with pytest.raises(StateUnreadable, match=r"state\.last\.json beside it"):
                await runner.turn()
            assert runner.status()["effective"]["b"] == 50.0
        with pytest.raises(StateUnreadable):
            await release.runners[0].command("abort")
        (tmp_path / "state.json").write_bytes((tmp_path / "state.last.json").read_bytes())
        await release.runners[0].command("abort", at_once=True)
        (tmp_path / "state.json").unlink()
        for runner in release.runners:
            await runner.turn()
            assert runner.status()["phase"] == "idle"


async def test_the_loop_leads_by_itself(tmp_path: Path) -> None:
    async with releasing(tmp_path) as release:
        runner = release.runners[0]
        runner.start()
        await eventually(lambda: bool(runner.status()["leader"]))
        await runner.stop()
        assert not runner.status()["leader"]


# The world outside.


@dataclass
class Outside:
    """A gate and a webhook."""

    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    def play(self, fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            _, body = await conversation.request()
            self.bodies.append(json.loads(body))
            await conversation.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.status)

        return play


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    world = Outside()
    fake = FakeSet("outside", play=lambda conversation: asyncio.sleep(0))
    fake.play = world.play(fake)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    world.port = server.sockets[0].getsockname()[1]
    yield world
    server.close()


async def test_a_gate_is_asked_with_what_is_known_and_lets_in(tmp_path: Path) -> None:
    async with outside() as gate:
        steps = (Step(5_000, 30.0, f"http://127.0.0.1:{gate.port}/ask"),)
        async with releasing(tmp_path, steps=steps) as release:
            runner = release.runners[0]
            gate.status = 403
            status = await runner.command("start")
            assert (status["phase"], status["effective"]["b"]) == ("gated", 0.0)
            await release.turn()
            await eventually(lambda: len(gate.bodies) == 1)
            await eventually(lambda: not runner._errands)
            await release.turn()
            assert "says not now: it answered 403" in runner.status()["reason"]
            gate.status = 204
            await release.turn(16)
            await eventually(lambda: len(gate.bodies) == 2)
            await eventually(lambda: runner.state.read().weight == 5_000)
            await release.turn()
            assert runner.status()["effective"]["b"] == 50.0
            assert (gate.bodies[0]["set"], gate.bodies[0]["asked"]) == ("b", 1)


async def test_every_event_is_posted_once_and_in_order(tmp_path: Path) -> None:
    async with outside() as hook, releasing(tmp_path, events=f"http://127.0.0.1:{hook.port}/") as release:
        runner = release.runners[0]
        await runner.command("start", "ops")
        await runner.command("abort", "ops", "odd answers")
        for _ in range(3):
            await release.turn()
            await asyncio.sleep(0.05)
        await eventually(lambda: runner.state.read().posted == 4)
        await release.turn(3)
        assert [body["kind"] for body in hook.bodies] == ["started", "holding", "aborting", "aborted"]
        assert [body["serial"] for body in hook.bodies] == [1, 2, 3, 4]
        assert hook.bodies[2]["text"] == "aborted by hand: odd answers"
