"""Failures at every point of an exchange: retries, their budget, back-pressure, ejection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from router.wire.addresses import Address, Addresses
from router.wire.limits import Limits
from tests.descriptors import no_descriptors_left
from tests.router.relay.plays import (
    ASYNC,
    ENDING,
    FULL,
    GET,
    SYNC,
    refuses_as_full,
    resets_after_request,
    scripted,
)
from tests.router.rig import (
    Conversation,
    FakeSet,
    Play,
    answering,
    eventually,
    free_port,
    running,
    table_for,
)
from tests.router.wire.conversation import DeafSet
from tests.router.wire.test_addresses import Resolver


@pytest.mark.parametrize("request_bytes", [GET, SYNC])
async def test_a_reset_before_the_answer_is_tried_on_another_set(request_bytes: bytes) -> None:
    plays = {"a": scripted(resets_after_request), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        answers = [await rig.ask(request_bytes) for _ in range(4)]
        assert [answer.status for answer in answers] == [200] * 4
        assert rig.traffic.stats["b"].retries >= 3
        assert rig.traffic.retries.running == 0


async def test_an_async_run_whose_answer_was_lost_is_not_repeated() -> None:
    plays = {"a": scripted(resets_after_request), "b": answering()}
    async with running(
        plays, weights={"a": 99.99, "b": 0.01}, more="rules: [{name: r, when: {method: POST}, to: a}]"
    ) as rig:
        answer = await rig.ask(ASYNC)
        assert answer.status == 502
        assert answer.problem["type"].endswith("router-set-lost")
        assert answer.problem["executed"] is True
        assert rig.sets["b"].requests == []


async def test_retry_sync_false_forbids_a_second_run() -> None:
    plays = {"a": scripted(resets_after_request)}
    async with running(plays, more="retry: {retry_sync: false}") as rig:
        assert (await rig.ask(SYNC)).status == 502
        assert rig.sets["a"].connections == 1


@pytest.mark.parametrize("request_bytes", [GET, SYNC, ASYNC])
async def test_a_set_that_refuses_connections_is_avoided(request_bytes: bytes) -> None:
    async with running({"a": answering()}) as rig:
        ports = {"dead": free_port(), "a": rig.sets["a"].port}
        rig.traffic.adopt(table_for(ports, {"dead": 99, "a": 1}))
        for _ in range(30):
            assert (await rig.ask(request_bytes)).status == 200
        # Refused once, never chosen again while another is alive.
        assert rig.traffic.stats["dead"].failures == {"connect": 1}


async def test_without_any_set_alive_nothing_ran() -> None:
    async with running({"a": answering()}) as rig:
        rig.traffic.adopt(table_for({"dead": free_port()}))
        answer = await rig.ask(ASYNC)
        assert answer.status == 503
        assert answer.problem["type"].endswith("router-set-unavailable")
        assert answer.problem["executed"] is False
        assert "retry-after" in answer.headers


NO_FAMILY: Address = (9999, ("192.0.2.1", 80))
NO_NAME: Address = (socket.AF_INET, ("no-such-host.invalid", 80))


@pytest.mark.parametrize("bad", [NO_FAMILY, NO_NAME, None], ids=["socket", "connect", "resolver"])
@pytest.mark.parametrize("request_bytes", [GET, SYNC, ASYNC], ids=["get", "sync", "async"])
async def test_a_connection_that_cannot_even_be_begun_is_a_failed_attempt(
    bad: Address | None, request_bytes: bytes
) -> None:
    async with running({"a": answering(), "b": answering()}, weights={"a": 99.99, "b": 0.01}) as rig:
        for name in ("a", "b"):
            found = () if bad is None else (bad,)
            rig.traffic.pools[name].addresses = Addresses(rig.plane.loop, "set", 80, Resolver(*found))
        answer = await rig.ask(request_bytes)
        assert answer.status == 503
        assert answer.problem["type"].endswith("router-set-unavailable")
        assert answer.problem["executed"] is False
        assert [rig.traffic.pools[name].inflight for name in ("a", "b")] == [0, 0]
        assert [rig.traffic.stats[name].failures for name in ("a", "b")] == [
            {"connect": 1},
            {"connect": 1},
        ]
        rig.traffic.pools["b"].addresses = Addresses(rig.plane.loop, "127.0.0.1", rig.sets["b"].port)
        assert (await rig.ask(request_bytes)).status == 200
        assert rig.traffic.pools["a"].inflight == 0


async def test_a_set_is_found_by_its_name() -> None:
    async with running({"a": answering()}) as rig:
        pool = rig.traffic.pools["a"]
        pool.addresses = Addresses(rig.plane.loop, "localhost", rig.sets["a"].port)
        assert (await rig.ask(GET)).status == 200
        assert pool.inflight == 0


async def test_without_a_descriptor_the_client_is_told_and_the_set_not_blamed() -> None:
    async with running({"a": answering()}) as rig:
        client = await rig.client()
        await eventually(lambda: len(rig.plane.clients) == 1)
        with no_descriptors_left():
            answer = await client.ask(GET)
        assert (answer.status, answer.problem["executed"]) == (503, False)
        assert "Too many open files" in answer.problem["detail"]
        assert rig.traffic.stats["a"].failures == {"no_room": 2}
        assert rig.traffic.board.word("a", rig.plane.loop.time()) == "up"
        assert rig.traffic.pools["a"].inflight == 0
        assert (await client.ask(GET)).status == 200


async def test_a_client_that_leaves_while_a_connection_is_made_is_forgotten() -> None:
    deaf = DeafSet()
    async with running({"a": answering()}) as rig:
        rig.stack.callback(deaf.close)
        rig.traffic.adopt(table_for({"a": deaf.port}))
        pool = rig.traffic.pools["a"]
        client = await rig.client()
        await client.send(GET)
        await eventually(lambda: pool.reads == 1)
        client.close()
        await eventually(lambda: pool.reads == 0 and rig.plane.active == 0)


async def test_a_large_body_waits_for_a_living_set() -> None:
    """Nothing is read beyond what came with the head until a connection stands, so any body survives a dead set."""
    async with running({"a": answering()}) as rig:
        rig.traffic.adopt(
            table_for({"dead": free_port(), "a": rig.sets["a"].port}, {"dead": 99.99, "a": 0.01})
        )
        client = await rig.client()
        await client.send(
            b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\nContent-Length: 1000000\r\n\r\n"
        )
        await client.send(b"x" * 1_000_000)
        assert (await client.answer()).status == 200
        assert len(rig.sets["a"].requests[0][1]) == 1_000_000


async def test_a_body_that_is_too_large_to_replay_is_not_retried() -> None:
    async with running(
        {"a": scripted(resets_after_request), "b": answering()}, weights={"a": 99.99, "b": 0.01}
    ) as rig:
        client = await rig.client()
        await client.send(
            b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\nContent-Length: 200000\r\n\r\n"
            + b"x" * 200_000
        )
        assert (await client.answer()).status == 502


async def test_back_pressure_goes_elsewhere_and_ejects_nobody() -> None:
    plays = {"a": answering(FULL), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        for _ in range(20):
            assert (await rig.ask(ASYNC)).status == 200
        assert rig.traffic.stats["a"].back_pressure >= 15
        assert rig.traffic.stats["a"].ejections == 0
        assert rig.traffic.board.of("a").alive()


async def test_a_set_that_says_it_drains_is_not_asked_again() -> None:
    plays = {"a": answering(ENDING), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        for _ in range(5):
            assert (await rig.ask(ASYNC)).status == 200
        assert len(rig.sets["a"].requests) == 1
        # Its own tasks it still answers.
        assert (await rig.ask(b"GET /v1/tasks/a-1 HTTP/1.1\r\nHost: h\r\n\r\n")).status == 503
        assert len(rig.sets["a"].requests) > 1
        rig.traffic.board.probe_ok("a", rig.plane.loop.time())
        assert rig.traffic.board.word("a", rig.plane.loop.time()) == "slow start"


async def test_back_pressure_of_every_set_reaches_the_client_as_it_is() -> None:
    async with running({"a": answering(FULL)}) as rig:
        answer = await rig.ask(SYNC)
        assert (answer.status, answer.body) == (503, b'{"executed": false}')
        assert answer.headers["x-set"] == "a"
        assert "x-router" not in answer.headers
        assert len(rig.sets["a"].requests) == 1


async def test_a_client_that_waited_its_queue_time_is_not_made_to_wait_again() -> None:
    async def slow_full(conversation: Conversation) -> None:
        await conversation.request()
        await asyncio.sleep(1.1)
        await conversation.send(FULL)

    plays = {"a": scripted(slow_full), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        answer = await rig.ask(SYNC.replace(b"/cat", b"/cat?queue_timeout_s=1"))
        assert answer.status == 503
        assert rig.sets["b"].requests == []


@pytest.mark.parametrize(
    ("lines", "ejections"), [(b"", 1), (b"X-Task-Id: a-1\r\n", 0)], ids=["without a task", "with a task"]
)
async def test_failures_in_a_row_eject_unless_a_task_answered(lines: bytes, ejections: int) -> None:
    bad = b"HTTP/1.1 504 Gateway Timeout\r\n%bContent-Length: 0\r\n\r\n" % lines
    async with running({"a": answering(bad), "b": answering()}) as rig:
        for _ in range(5):
            assert (await rig.ask(GET)).status == 504
        assert rig.traffic.stats["a"].ejections == ejections
        ready = rig.traffic.board.usable(["a", "b"], rig.plane.loop.time())
        assert ("a" in ready) is (ejections == 0)


def answers_badly(*parts: bytes) -> Callable[[FakeSet], Play]:
    """Every answer is the same, sent in these parts."""

    async def play(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            for part in parts:
                await conversation.send(part)
                await asyncio.sleep(0.01)

    return scripted(play)


CHUNKED = b"HTTP/1.1 200 OK\r\nX-Task-Id: a-1\r\nTransfer-Encoding: chunked\r\n\r\n"
GARBAGE = {
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n",),
    "no length": (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",),
    "a bad chunk": (CHUNKED + b"nonsense\r\n",),
    "a bad chunk later": (CHUNKED + b"1\r\nx\r\n", b"nonsense\r\n"),
}


@pytest.mark.parametrize("parts", GARBAGE.values(), ids=list(GARBAGE))
async def test_a_set_whose_answers_are_garbage_is_ejected(parts: tuple[bytes, ...]) -> None:
    async with running(
        {"a": answers_badly(*parts), "b": answering()}, weights={"a": 99.99, "b": 0.01}
    ) as rig:
        for _ in range(5):
            with suppress(asyncio.IncompleteReadError):  # Broken off, where it had begun.
                assert (await rig.ask(SYNC)).status == 502
        assert rig.traffic.stats["a"].ejections == 1
        assert rig.traffic.board.word("a", rig.plane.loop.time()) == "ejected"
        assert rig.traffic.board.of("a").because
        assert (await rig.ask(SYNC)).status == 200
        assert not rig.traffic.stats["b"].failures


@pytest.mark.parametrize(
    ("request_bytes", "status"), [(GET, 200), (SYNC, 502), (ASYNC, 502)], ids=["get", "sync", "async"]
)
async def test_only_what_runs_nothing_is_asked_again_after_garbage(request_bytes: bytes, status: int) -> None:
    plays = {"a": answers_badly(*GARBAGE["no HTTP"]), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        answer = await rig.ask(request_bytes)
        assert answer.status == status
        assert len(rig.sets["b"].requests) == (status == 200)
        assert rig.traffic.stats["a"].failures == {"bad_answer": 1}
        if status == 502:
            assert answer.problem["executed"] is True


@pytest.mark.parametrize(
    ("request_bytes", "failure", "ejections"),
    [(GET, "silent", 1), (SYNC, "timeout", 0), (GET.replace(b"/x", b"/v1/tasks/a-1?wait=9"), "timeout", 0)],
    ids=["get", "run", "wait"],
)
async def test_a_set_is_blamed_for_silence_where_no_algorithm_may_be_slow(
    request_bytes: bytes, failure: str, ejections: int
) -> None:
    async def is_silent(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.request()

    limits = Limits(first_byte_s=0.05, task_first_byte_s=0.05)
    async with running({"a": scripted(is_silent)}, limits=limits) as rig:
        for _ in range(5):
            assert (await rig.ask(request_bytes)).status == 504
        assert rig.traffic.stats["a"].failures == {failure: 5}
        assert rig.traffic.stats["a"].ejections == ejections


async def test_retries_stay_within_their_budget() -> None:
    plays = {"a": scripted(resets_after_request), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}, more="retry: {budget: 0%}") as rig:
        rig.traffic.retries.running = 3
        assert (await rig.ask(SYNC)).status == 502
        assert rig.traffic.retries.refused == 1
        assert rig.traffic.retries.waiting == 0


@pytest.mark.parametrize("request_bytes", [GET, ASYNC])
async def test_what_surely_did_nothing_waits_for_room_in_the_budget(request_bytes: bytes) -> None:
    first = resets_after_request if request_bytes is GET else refuses_as_full
    plays = {"a": scripted(first), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        rig.traffic.retries.running = 3
        asking = asyncio.create_task(rig.ask(request_bytes))
        await eventually(lambda: rig.traffic.retries.waiting == 1)
        assert rig.traffic.stats["b"].retries == 0
        rig.traffic.retries.running = 2
        assert (await asking).status == 200
        assert (rig.traffic.retries.running, rig.traffic.retries.waiting) == (2, 0)
        assert rig.traffic.retries.refused == 0


async def test_waiting_for_room_ends() -> None:
    """With the set's own answer where it gave one, else with the router's, of the set that failed."""
    plays = {"a": answering(FULL), "b": answering()}
    short = "retry: {patience: 100ms}"
    async with running(plays, weights={"a": 99.99, "b": 0.01}, more=short) as rig:
        rig.traffic.retries.running = 3
        answer = await rig.ask(ASYNC)
        assert (answer.status, answer.headers["x-set"]) == (503, "a")
        assert rig.traffic.retries.refused == 1
        ports = {"dead": free_port(), "b": rig.sets["b"].port}
        rig.traffic.adopt(table_for(ports, {"dead": 99.99, "b": 0.01}, short))
        answer = await rig.ask(ASYNC)
        assert answer.problem["executed"] is False
        assert "'dead'" in answer.problem["detail"]
        assert rig.traffic.retries.waiting == 0
        assert rig.sets["b"].requests == []


async def test_a_client_that_leaves_while_its_retry_waits_is_forgotten() -> None:
    plays = {"a": answering(FULL), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        rig.traffic.retries.running = 3
        client = await rig.client()
        await client.send(ASYNC)
        await eventually(lambda: rig.traffic.retries.waiting == 1)
        client.close()
        await eventually(lambda: rig.traffic.retries.waiting == 0)
        assert (rig.plane.active, rig.traffic.cancelled, rig.traffic.retries.running) == (0, 1, 3)


async def test_a_set_that_ends_fails_nobody_though_all_need_a_retry_at_once() -> None:
    asked = asyncio.Semaphore(0)
    end = asyncio.Event()

    async def ends(conversation: Conversation) -> None:
        await conversation.request()
        asked.release()
        await end.wait()
        await conversation.send(ENDING)

    plays = {"a": scripted(ends), "b": answering()}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        asking = asyncio.gather(*(rig.ask(ASYNC) for _ in range(60)))
        for _ in range(60):
            await asked.acquire()
        end.set()
        assert {answer.status for answer in await asking} == {200}
        assert len(rig.sets["b"].requests) == 60


async def test_the_problem_names_request_and_router() -> None:
    async with running({"a": scripted(resets_after_request)}) as rig:
        answer = await rig.ask(ASYNC.replace(b"Host: h\r\n", b"Host: h\r\nX-Request-Id: my-id\r\n"))
        assert answer.headers["x-request-id"] == "my-id"
        assert answer.headers["x-router"] == "r1"
        assert answer.problem["request_id"] == "my-id"
