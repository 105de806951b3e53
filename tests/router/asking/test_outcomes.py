"""How asynchronous tasks end, from what sets count: what is new, over restarts, silence and other weights."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from router.asking.outcomes import ASK_EVERY_S, Asked, Outcomes, counted
from router.counting.tally import Ended
from router.rollout.runner import Runner
from router.routing.plan import AbortWhen, Plan, Step
from router.routing.table import SetEntry
from sets.api.metrics import SetMetrics
from tests.router.rig import OK, Rig, answering, running

TEXT = b"""# HELP gc_tasks_ended_total Tasks ended
# TYPE gc_tasks_ended_total counter
gc_tasks_ended_total{kind="sync",state="failed"} 900.0
gc_tasks_ended_total{kind="async",state="succeeded"} 1.5e+06
gc_tasks_ended_total{kind="async",state="failed"} 12.0
gc_tasks_ended_total{state="timed_out",kind="async"} 3
gc_tasks_ended_total{kind="async",state="cancelled"} 40.0
gc_tasks_ended_total{kind="async",state="queued"} 0.0
gc_other_total{kind="async",state="failed"} 5.0
"""
A = SetEntry("a", "127.0.0.1", 1)


def test_succeeded_failed_and_timed_out_are_counted() -> None:
    assert counted(TEXT) == Ended(1_500_000, 15)


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b'gc_tasks_ended_total{kind="sync",state="failed"} 1', b"\xff{" * 1000]
)
def test_who_tells_nothing_has_no_counts(text: bytes) -> None:
    assert counted(text) is None


def test_the_sets_own_metrics_are_understood() -> None:
    assert counted(SetMetrics().text(ready=True, launcher_up=True)) == Ended(0, 0)


def test_only_what_is_new_counts() -> None:
    outcomes = Outcomes()
    assert outcomes.gained(A, Ended(100, 10)) == Ended(0, 0)
    assert outcomes.gained(A, Ended(103, 11)) == Ended(3, 1)
    # It restarted: everything that it counts is new.
    assert outcomes.gained(A, Ended(2, 1)) == Ended(2, 1)
    # Another machine under the same name has a past of its own.
    assert outcomes.gained(replace(A, port=2), Ended(50, 50)) == Ended(0, 0)
    outcomes.forget()
    assert outcomes.gained(A, Ended(9, 9)) == Ended(0, 0)


@asynccontextmanager
async def telling(answer: bytes) -> AsyncIterator[SetEntry]:
    """A set that answers everything like this, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"GET /metrics HTTP/1.1\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield SetEntry("a", "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def test_sets_are_asked_and_those_that_do_not_tell_are_left_out() -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(TEXT), TEXT)
    no = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    async with telling(good) as a, telling(no) as locked, telling(b"garbage\r\n\r\n") as odd:
        entries = [a, replace(locked, name="b"), replace(odd, name="c"), SetEntry("d", "127.0.0.1", 1)]
        assert await Outcomes().read(entries) == {"a": Ended(0, 0)}


async def test_a_set_with_authentication_is_asked_with_the_routers_token(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if b"Authorization: Bearer gc_router_" in heads[-1]:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(TEXT), TEXT))
        else:
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    a = SetEntry("a", "127.0.0.1", server.sockets[0].getsockname()[1])
    outcomes = Outcomes()
    with capture_logs() as lines:
        assert [await outcomes.read([a]) for _ in range(2)] == [{}, {}]
        assert [(line["set"], line["status"], line["next"]) for line in lines] == [
            ("a", 401, "give `operator_token_file`")
        ], "an operator is told once what is missing"
        token = tmp_path / "token"
        token.write_text("gc_router_" + "5" * 48)
        known = replace(a, operator_token_file=str(token))
        assert await outcomes.read([known]) == {"a": Ended(0, 0)}
    assert b"5555" not in b"".join(heads[:2])
    assert "5555" not in str(lines)
    server.close()


@dataclass
class Played(Outcomes):
    """Sets whose counts are told by hand; None: it does not answer."""

    counts: dict[str, Ended | None] = field(default_factory=dict)
    looks: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    async def read(self, entries: Iterable[Asked]) -> dict[str, Ended]:
        self.looks += 1
        return await super().read(entries)

    async def _ask(self, entry: Asked) -> Ended | None:
        return self.counts.get(entry.name)


@dataclass
class Leading:
    rig: Rig
    runner: Runner
    sets: Played
    clock: list[float]

    async def pass_s(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock[0] += 1.0
            await self.runner.turn()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    @property
    def seen(self) -> tuple[int, int, int, int]:
        canary, control = self.runner.observer.canary, self.runner.observer.control
        return canary.async_ok, canary.async_failed, control.async_ok, control.async_failed


@asynccontextmanager
async def leading(folder: Path, *, steps: tuple[Step, ...] = (Step(5_000, 600.0),)) -> AsyncIterator[Leading]:
    plays = {"a": answering(OK), "b": answering(OK), "c": answering(OK)}
    async with running(plays, weights={"a": 60, "b": 0, "c": 40}) as rig:
        clock, sets = [1e6], Played()
        file = replace(rig.traffic.table, rollout=Plan("b", steps, AbortWhen(min_requests=20)))
        runner = Runner(rig.traffic, folder, file, outcomes=sets, clock=lambda: clock[0])
        yield Leading(rig, runner, sets, clock)
        await runner.stop()


async def test_the_leader_adds_up_both_sides_while_it_compares(tmp_path: Path) -> None:
    async with leading(tmp_path) as led:
        led.sets.counts = {"a": Ended(1000, 50), "b": Ended(7, 7), "c": Ended(0, 0)}
        await led.pass_s(12)
        assert led.sets.looks == 0, "nobody is asked while no rollout is under way"
        await led.runner.command("start")
        await led.pass_s(2)
        led.sets.counts = {"a": Ended(1010, 51), "b": Ended(9, 8), "c": Ended(4, 1)}
        await led.pass_s(ASK_EVERY_S)
        assert led.seen == (2, 1, 14, 2)
        # Who is silent for a while is counted when it answers again.
        led.sets.counts = {"a": None, "b": Ended(10, 8), "c": Ended(5, 1)}
        await led.pass_s(ASK_EVERY_S)
        assert led.seen == (3, 1, 15, 2)
        led.sets.counts["a"] = Ended(1020, 51)
        await led.pass_s(ASK_EVERY_S)
        assert led.seen == (3, 1, 25, 2)


async def test_a_canary_whose_asynchronous_tasks_fail_is_taken_back(tmp_path: Path) -> None:
    async with leading(tmp_path) as led:
        led.sets.counts = {"a": Ended(), "b": Ended(), "c": Ended()}
        await led.runner.command("start")
        await led.pass_s(2)
        client = await led.rig.client()
        for number in range(80):
            await client.send(b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u%d\r\n\r\n" % number)
            await client.answer()
        led.sets.counts = {"a": Ended(90, 2), "b": Ended(10, 50), "c": Ended(60, 1)}
        await led.pass_s(2 * ASK_EVERY_S)
        status = led.runner.status()
        assert status["phase"] == "aborted", status["checks"]
        assert status["reason"].startswith("share of failed asynchronous tasks 83.33% against 1.96%")


async def test_what_ended_at_other_weights_is_not_counted(tmp_path: Path) -> None:
    async with leading(tmp_path, steps=(Step(1_000, 600.0), Step(5_000, 600.0))) as led:
        led.sets.counts = {"a": Ended(), "b": Ended(), "c": Ended()}
        await led.runner.command("start")
        await led.pass_s(2)
        led.sets.counts = {"a": Ended(5, 0), "b": Ended(5, 5), "c": Ended()}
        await led.runner.command("skip")
        await led.pass_s(2)
        led.sets.counts["b"] = Ended(6, 5)
        await led.pass_s(ASK_EVERY_S)
        assert led.seen == (1, 0, 0, 0)


async def test_who_does_not_lead_asks_nobody(tmp_path: Path) -> None:
    async with leading(tmp_path) as led:
        led.sets.counts = {"a": Ended(), "b": Ended(), "c": Ended()}
        await led.runner.command("start")
        await led.pass_s(2)
        other = Played()
        second = Runner(
            led.rig.traffic, tmp_path, led.runner._file, outcomes=other, clock=lambda: led.clock[0]
        )
        for _ in range(12):
            led.clock[0] += 1.0
            await second.turn()
        assert (led.sets.looks > 0, other.looks) == (True, 0)
        await second.stop()
