"""One request on its way: streaming, early answers, failures at every point, retries, time-outs."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from router.routing.table import SetState, Table, Weights
from router.wire.addresses import Address, Addresses
from router.wire.limits import Limits
from router.wire.stream import MAX_POSTERS
from tests.descriptors import no_descriptors_left
from tests.router.rig import (
    OK,
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

# One user, so that a set with nearly all the weight is home to every request, always.
GET = b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\n\r\n"
SYNC = b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\nContent-Length: 2\r\n\r\nhi"
ASYNC = b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\nPrefer: respond-async\r\nContent-Length: 2\r\n\r\nhi"
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nX-Set: a\r\n"
    b'Content-Length: 19\r\n\r\n{"executed": false}'
)

_ENDS = b'{"type": "https://general-compute.invalid/problems/set-draining", "executed": false}'
ENDING = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_ENDS), _ENDS)
)


def scripted(*steps: Callable[[Conversation], object]) -> Callable[[FakeSet], Play]:
    """A set whose n-th connection is played by the n-th step; the last one plays all further ones."""

    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            step = steps[min(conversation.number, len(steps)) - 1]
            await step(conversation)  # type: ignore[misc]

        return play

    return make


async def answers_ok(conversation: Conversation) -> None:
    while True:
        await conversation.request()
        await conversation.send(OK)


async def resets_after_request(conversation: Conversation) -> None:
    await conversation.request()
    conversation.reset()


async def refuses_as_full(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(FULL)


async def closes_at_second_request(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(OK)
    await conversation.request()


# Both directions.


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_arrive_whole_both_ways(chunked: bool) -> None:
    body = hashlib.shake_256(b"seed").digest(3_000_000)

    def echo(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            head, got = await conversation.request()
            fake.requests.append((head, got))
            if chunked:
                await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + got)
            else:
                await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(got) + got)

        return play

    async with running({"a": echo}) as rig:
        client = await rig.client()
        if chunked:
            parts = [body[i : i + 70_001] for i in range(0, len(body), 70_001)]
            sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            framing = b"Transfer-Encoding: chunked"
        else:
            sent = body
            framing = b"Content-Length: %d" % len(body)
        _, answer = await asyncio.gather(
            client.send(b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % framing + sent),
            client.answer(),
        )
        assert answer.body == body
        assert rig.sets["a"].requests[0][1] == sent
        assert rig.plane.buffers.loans == 0


async def test_the_answer_flows_while_the_request_still_does() -> None:
    async def duplex(conversation: Conversation) -> None:
        await conversation.head()
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            line = await conversation.reader.readuntil(b"\r\n")
            data = await conversation.reader.readexactly(int(line, 16) + 2)
            await conversation.send(line + data)
            if line == b"0\r\n":
                return

    async with running({"a": scripted(duplex)}) as rig:
        client = await rig.client()
        await client.send(b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b"200 OK" in await client.reader.readuntil(b"\r\n\r\n")
        for word in (b"one", b"three"):
            chunk = b"%x\r\n%b\r\n" % (len(word), word)
            await client.send(chunk)
            assert await client.reader.readexactly(len(chunk)) == chunk
        await client.send(b"0\r\n\r\n")
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"


async def test_an_early_answer_reaches_a_client_that_still_sends() -> None:
    async def too_large(conversation: Conversation) -> None:
        await conversation.head()
        await conversation.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")

    async with running({"a": scripted(too_large)}) as rig:
        client = await rig.client()
        await client.send(b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n")
        sending = asyncio.create_task(client.send(b"x" * 20_000_000))
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"big")
        assert answer.headers["connection"] == "close"
        # What the client still sends is taken and dropped, so that the answer survives.
        await sending


async def test_a_short_rest_of_a_body_is_dropped_and_the_connection_lives_on() -> None:
    async def ignores_body(conversation: Conversation) -> None:
        await conversation.head()
        await conversation.send(OK)

    async with running({"a": scripted(ignores_body)}) as rig:
        client = await rig.client()
        await client.send(b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe")
        assert (await client.answer()).body == b"ok"
        await client.send(b"llo" + GET)
        assert (await client.answer()).body == b"ok"
        assert rig.sets["a"].connections == 2


@pytest.mark.parametrize("away", [False, True])
async def test_a_retry_after_a_reload_knows_only_the_new_sets(away: bool) -> None:
    held, reset = asyncio.Event(), asyncio.Event()

    async def waits_then_resets(conversation: Conversation) -> None:
        await conversation.request()
        held.set()
        await reset.wait()
        conversation.reset()

    plays = {"a": scripted(waits_then_resets), "b": answering(), "c": answering()}
    rules = "rules: [{name: r, when: {method: POST}, to: a, if_down: fail}]"
    async with running(plays, more=rules) as rig:
        asking = asyncio.create_task(rig.ask(SYNC))
        await held.wait()
        if away:  # The reload comes while the retry waits for its time.
            rig.traffic.adopt(table_for({name: rig.sets[name].port for name in "ab"}, {"a": 0, "b": 100}))
            reset.set()
            await eventually(lambda: rig.traffic.retries.waiting == 1 or rig.traffic.stats["b"].retries == 1)
        rig.traffic.board.failed("b", rig.plane.loop.time())  # Trouble, so that health is asked.
        rig.traffic.adopt(table_for({"c": rig.sets["c"].port}))
        reset.set()
        assert (await asking).status == 200
        assert len(rig.sets["c"].requests) + len(rig.sets["b"].requests) == 1


async def test_a_problem_after_two_attempts_speaks_of_both() -> None:
    """The first may have run; the second surely did not."""
    plays = {"a": scripted(resets_after_request), "b": answering(FULL)}
    async with running(plays, weights={"a": 99.99, "b": 0.01}) as rig:
        answer = await rig.ask(SYNC)
        assert answer.status == 502
        assert answer.problem["executed"] is True
        rig.traffic.adopt(
            table_for({"a": rig.sets["a"].port, "dead": free_port()}, {"a": 99.99, "dead": 0.01})
        )
        answer = await rig.ask(SYNC)
        assert answer.status == 502
        assert answer.problem["executed"] is True


async def test_continue_is_relayed_and_not_invented() -> None:
    permit = asyncio.Event()

    async def patient(conversation: Conversation) -> None:
        head = await conversation.head()
        await permit.wait()
        await conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await conversation.body(head)
        await conversation.send(OK)

    async with running({"a": scripted(patient)}) as rig:
        client = await rig.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.reader.readexactly(1), 0.1)
        permit.set()
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hi")
        assert (await client.answer()).body == b"ok"


async def test_a_client_that_goes_away_closes_the_connection_to_the_set() -> None:
    gone = asyncio.Event()

    async def waits(conversation: Conversation) -> None:
        await conversation.request()
        assert await conversation.reader.read() == b""
        gone.set()

    async with running({"a": scripted(waits)}) as rig:
        client = await rig.client()
        await client.send(SYNC)
        await eventually(lambda: rig.plane.active == 1)
        client.close()
        await asyncio.wait_for(gone.wait(), 5)
        await eventually(lambda: rig.plane.active == 0)
        assert rig.traffic.cancelled == 1
        assert rig.traffic.pools["a"].inflight == 0


async def test_a_slow_reader_holds_the_set_back() -> None:
    sent = 0

    async def endless(conversation: Conversation) -> None:
        nonlocal sent
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await conversation.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536

    async with running({"a": scripted(endless)}) as rig:
        client = await rig.client()
        await client.send(GET)
        await client.reader.readuntil(b"\r\n\r\n")
        before = -1
        while before != sent:  # Until the pipe is full.
            before = sent
            await asyncio.sleep(0.2)
        assert rig.plane.buffers.loans <= 1
        client.close()
        await eventually(lambda: rig.plane.active == 0)
        assert rig.plane.buffers.loans == 0


async def test_a_slow_set_holds_the_client_back() -> None:
    async def deaf(conversation: Conversation) -> None:
        await conversation.head()
        await asyncio.sleep(60)

    async with running({"a": scripted(deaf)}) as rig:
        client = await rig.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.send(b"x" * 100_000_000), 1.0)
        assert rig.plane.buffers.loans <= 1


async def test_many_pipelined_requests_are_answered_in_order() -> None:
    async def echo_path(conversation: Conversation) -> None:
        while True:
            head, _ = await conversation.request()
            path = head.split(b" ")[1]
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    async with running({"a": scripted(echo_path)}) as rig:
        client = await rig.client()
        count = 6000  # More than the queue of unread requests may hold.
        requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (i, b"h" * 40) for i in range(count))
        sending = asyncio.create_task(client.send(requests))
        for i in range(count):
            assert (await client.answer()).body == b"/%d" % i
        await sending


async def test_problems_of_the_router_itself_are_pipelined_too() -> None:
    async with running({"a": answering()}) as rig:
        client = await rig.client()
        await client.send(b"GET /v1/tasks/zz-1 HTTP/1.1\r\nHost: h\r\n\r\n" * 500 + GET)
        for _ in range(500):
            assert (await client.answer()).status == 404
        assert (await client.answer()).status == 200


# Connections to sets.


async def test_connections_to_a_set_are_kept() -> None:
    async with running({"a": answering()}) as rig:
        client = await rig.client()
        for _ in range(5):
            assert (await client.ask(GET)).status == 200
        assert (await rig.ask(SYNC)).status == 200
        assert rig.sets["a"].connections == 1


async def test_bytes_after_an_answer_end_the_connection() -> None:
    async def babbles(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(OK)
        await asyncio.sleep(0.05)
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await conversation.reader.read()

    async with running({"a": scripted(babbles, answers_ok)}) as rig:
        assert (await rig.ask(GET)).body == b"ok"
        await eventually(lambda: rig.traffic.pools["a"].idle == 0)
        assert (await rig.ask(GET)).body == b"ok"


@pytest.mark.parametrize("request_bytes", [GET, SYNC])
async def test_a_kept_connection_that_ends_at_the_next_request_is_replaced(request_bytes: bytes) -> None:
    async with running(
        {"a": scripted(closes_at_second_request, answers_ok)}, more="retry: {attempts: 1}"
    ) as rig:
        assert (await rig.ask(request_bytes)).status == 200
        assert (await rig.ask(request_bytes)).status == 200
        assert rig.sets["a"].connections == 2
        assert rig.traffic.board.of("a").failures == 0


async def test_an_async_run_on_a_kept_connection_that_ends_is_not_sent_twice() -> None:
    async with running({"a": scripted(closes_at_second_request, answers_ok)}) as rig:
        assert (await rig.ask(ASYNC)).status == 200
        answer = await rig.ask(ASYNC)
        assert answer.status == 502
        assert answer.problem["executed"] is True
        assert rig.sets["a"].connections == 1


async def test_an_async_run_takes_no_connection_that_was_idle_for_long() -> None:
    limits = Limits(pool_idle_unsafe_s=0.0)
    async with running({"a": answering()}, limits=limits) as rig:
        for _ in range(3):
            await rig.ask(ASYNC)
            await asyncio.sleep(0.01)
        assert rig.sets["a"].connections == 3


# Failures and retries.


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


# Ids, owners, states.


async def test_request_id_and_trace_are_made_or_passed() -> None:
    async with running({"a": answering()}) as rig:
        made = await rig.ask(GET)
        head = rig.sets["a"].requests[-1][0]
        assert re.search(rb"\r\nX-Request-Id: ([0-9a-f]{32})\r\n", head)
        assert re.search(rb"\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00\r\n", head)
        assert made.headers["x-request-id"].encode() in head
        trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        lines = b"X-Request-Id: mine\r\ntraceparent: %b\r\ntracestate: k=v\r\n\r\n" % trace
        passed = await rig.ask(GET.replace(b"\r\n\r\n", b"\r\n" + lines))
        head = rig.sets["a"].requests[-1][0]
        assert b"\r\ntraceparent: %b\r\n" % trace in head
        assert b"\r\ntracestate: k=v\r\n" in head
        assert passed.headers["x-request-id"] == "mine"
        assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in head


def with_state(table: Table, name: str, state: SetState) -> Table:
    return replace(table, sets={**table.sets, name: replace(table.sets[name], state=state)})


async def test_a_task_is_asked_of_its_owner_also_while_it_drains() -> None:
    async with running({"a": answering(), "b": answering()}) as rig:
        request = b"GET /v1/tasks/b-01jd3/stdout HTTP/1.1\r\nHost: h\r\n\r\n"
        assert (await rig.ask(request)).status == 200
        rig.traffic.adopt(with_state(rig.traffic.table, "b", SetState.DRAIN))
        assert (await rig.ask(request)).status == 200
        assert len(rig.sets["b"].requests) == 2
        rig.traffic.adopt(with_state(rig.traffic.table, "b", SetState.MAINT))
        answer = await rig.ask(request)
        assert answer.status == 503
        assert answer.problem["type"].endswith("router-set-in-maintenance")


async def test_an_owner_that_is_gone_is_a_503_and_an_unknown_one_a_404() -> None:
    async with running({"a": answering()}) as rig:
        rig.traffic.adopt(table_for({"a": rig.sets["a"].port, "dead": free_port()}))
        gone = await rig.ask(b"GET /v1/tasks/dead-1 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (gone.status, gone.problem["executed"]) == (503, False)
        unknown = await rig.ask(b"GET /v1/tasks/nobody-1 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert unknown.status == 404
        assert unknown.problem["type"].endswith("router-unknown-task")


async def test_a_full_set_passes_new_work_on_and_all_full_is_a_503() -> None:
    release = asyncio.Event()

    async def slow(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await release.wait()
            await conversation.send(OK)

    plays = {"a": scripted(slow), "b": scripted(slow)}
    async with running(plays, weights={"a": 50, "b": 50}) as rig:
        table = rig.traffic.table
        sets = {name: replace(entry, max_inflight=1) for name, entry in table.sets.items()}
        rig.traffic.adopt(replace(table, sets=sets, default=Weights(sets, table.default.shares)))
        clients = [await rig.client() for _ in range(2)]
        for client in clients:
            await client.send(SYNC)
        await eventually(lambda: all(rig.traffic.pools[name].inflight == 1 for name in "ab"))
        answer = await rig.ask(SYNC)
        assert answer.status == 503
        assert answer.problem["type"].endswith("router-sets-full")
        assert answer.problem["executed"] is False
        release.set()
        assert [(await client.answer()).status for client in clients] == [200, 200]


async def test_waits_take_no_room_of_runs() -> None:
    release = asyncio.Event()

    def waits(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            while True:
                head, _ = await conversation.request()
                if b"?wait=30" in head:
                    await release.wait()
                await conversation.send(OK)

        return play

    async with running({"a": waits}) as rig:
        table = rig.traffic.table
        sets = {name: replace(entry, max_inflight=3) for name, entry in table.sets.items()}
        rig.traffic.adopt(replace(table, sets=sets, default=Weights(sets, table.default.shares)))
        pool = rig.traffic.pools["a"]
        clients = [await rig.client() for _ in range(4)]
        for client in clients:
            await client.send(GET.replace(b"/x", b"/v1/tasks/a-1?wait=30"))
        await eventually(lambda: pool.reads == 4)
        assert pool.inflight == 0
        assert (await rig.ask(SYNC)).status == 200
        pool.inflight += 3  # As full as it may be.
        assert (await rig.ask(SYNC)).status == 503
        assert (await rig.ask(GET)).status == 200
        pool.inflight -= 3
        release.set()
        assert [(await client.answer()).status for client in clients] == [200] * 4
        assert (pool.reads, pool.inflight) == (0, 0)


# Time-outs.


async def test_a_slow_head_is_a_408() -> None:
    async with running({"a": answering()}, limits=Limits(header_s=0.1)) as rig:
        client = await rig.client()
        await client.send(b"GET / HT")
        answer = await client.answer()
        assert answer.problem["type"].endswith("router-headers-stalled")
        assert await client.rest() == b""


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with running({"a": answering()}, limits=Limits(keep_alive_s=0.1)) as rig:
        client = await rig.client()
        assert (await client.ask(GET)).status == 200
        assert await client.rest() == b""


async def test_a_stalled_body_is_a_408_and_the_set_is_told() -> None:
    ended = asyncio.Event()

    async def reads(conversation: Conversation) -> None:
        await conversation.head()
        await conversation.reader.read()
        ended.set()

    async with running({"a": scripted(reads)}, limits=Limits(body_idle_s=0.1)) as rig:
        client = await rig.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        answer = await client.answer()
        assert answer.problem["type"].endswith("router-body-stalled")
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_body_that_ends_too_early_cancels_the_request() -> None:
    bodies = []

    async def reads(conversation: Conversation) -> None:
        await conversation.head()
        bodies.append(await conversation.reader.read())

    async with running({"a": scripted(reads)}) as rig:
        client = await rig.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        client.writer.write_eof()
        await eventually(lambda: bodies == [b"abc"])


async def test_a_bad_chunk_in_a_running_upload_is_a_400_and_ends_the_request_at_the_set() -> None:
    bodies = []

    async def reads(conversation: Conversation) -> None:
        await conversation.head()
        bodies.append(await conversation.reader.read())

    async with running({"a": scripted(reads)}) as rig:
        client = await rig.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await eventually(lambda: rig.sets["a"].connections == 1)
        await asyncio.sleep(0.05)
        await client.send(b"zz\r\n")
        answer = await client.answer()
        assert answer.problem["type"].endswith("router-bad-body")
        await eventually(lambda: bodies == [b"3\r\nabc\r\n"])


async def test_a_set_that_does_not_answer_is_a_504() -> None:
    async def silent(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.reader.read()

    async with running(
        {"a": scripted(silent)}, limits=Limits(first_byte_s=0.1, task_first_byte_s=0.2)
    ) as rig:
        read, run = await asyncio.gather(rig.ask(GET), rig.ask(SYNC))
        assert read.problem["type"].endswith("router-answer-timeout")
        assert read.problem["executed"] is False
        assert run.status == 504
        assert run.problem["executed"] is True


async def test_an_answer_that_stalls_is_cut() -> None:
    async def stalls(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await conversation.reader.read()

    async with running({"a": scripted(stalls)}, limits=Limits(answer_idle_s=0.1)) as rig:
        client = await rig.client()
        await client.send(GET)
        assert (await client.rest()).endswith(b"\r\n\r\nabc")


async def test_a_client_that_reads_nothing_is_dropped() -> None:
    async def endless(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await conversation.send(b"x" * 65536)

    async with running({"a": scripted(endless)}, limits=Limits(write_stall_s=0.2)) as rig:
        client = await rig.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET)
        await eventually(lambda: rig.plane.stalled_clients == 1)
        assert rig.plane.active == 0


# Changes under load, and the end.


async def test_no_request_is_lost_through_reloads() -> None:
    async with running({"a": answering(), "b": answering()}) as rig:
        ports = {name: fake.port for name, fake in rig.sets.items()}
        stop = False
        statuses: list[int] = []

        async def ask_on() -> None:
            client = await rig.client()
            while not stop:
                statuses.append((await client.ask(SYNC)).status)

        asking = [asyncio.create_task(ask_on()) for _ in range(8)]
        for round_ in range(60):
            share = round_ % 11 * 10
            names = {"a": ports["a"], "b": ports["b"]} if round_ % 7 else {"b": ports["b"]}
            weights = {"a": 100 - share, "b": share} if "a" in names else {"b": 100}
            rig.traffic.adopt(table_for(names, weights))
            await asyncio.sleep(0.005)
        stop = True
        await asyncio.gather(*asking)
        assert len(statuses) > 60
        assert set(statuses) == {200}


async def test_a_stop_lets_requests_finish_and_takes_no_new_ones() -> None:
    release = asyncio.Event()

    async def slow(conversation: Conversation) -> None:
        await conversation.request()
        await release.wait()
        await conversation.send(OK)

    async with running({"a": scripted(slow)}) as rig:
        busy, idle = await rig.client(), await rig.client()
        await busy.send(SYNC)
        await eventually(lambda: rig.plane.active == 1)
        stopping = asyncio.create_task(rig.plane.drain(5.0))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionError):
            await rig.client()
        release.set()
        answer = await busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await stopping == 0


async def test_a_stop_is_bounded() -> None:
    async def never(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.reader.read()

    async with running({"a": scripted(never)}) as rig:
        client = await rig.client()
        await client.send(SYNC)
        await eventually(lambda: rig.plane.active == 1)
        assert await rig.plane.drain(0.1) == 1
        assert await client.rest() == b""


async def test_a_stop_answers_a_connection_in_use_once_more_and_says_that_it_ends() -> None:
    async with running({"a": answering()}) as rig:
        client = await rig.client()
        assert "connection" not in (await client.ask(GET)).headers
        stopping = asyncio.create_task(rig.plane.drain(5.0))
        await eventually(lambda: rig.plane.draining)
        answer = await client.ask(GET)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == b""
        assert await stopping == 0


async def test_a_stop_does_not_reset_a_client_whose_request_is_there_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.relay.plane.DRAIN_IDLE_S", 0.0)
    async with running({"a": answering()}) as rig:
        with socket.create_connection(("127.0.0.1", rig.port)) as client:
            await eventually(lambda: len(rig.plane.clients) == 1)
            client.sendall(GET)
            # Its first look at the connections comes before the loop has read anything.
            assert await rig.plane.drain(5.0) == 0
            answer = client.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer


async def test_an_answer_under_way_at_a_stop_does_not_end_a_connection_that_was_promised() -> None:
    release = asyncio.Event()

    async def slow(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
        await release.wait()
        await conversation.send(b"ok")
        await answers_ok(conversation)

    async with running({"a": scripted(slow, answers_ok)}) as rig:
        client = await rig.client()
        await client.send(GET)
        head = await client.reader.readuntil(b"\r\n\r\nok")
        assert b"Connection: close" not in head
        stopping = asyncio.create_task(rig.plane.drain(5.0))
        await eventually(lambda: rig.plane.draining)
        release.set()
        assert await client.reader.readexactly(2) == b"ok"
        answer = await client.ask(GET)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await stopping == 0


async def test_a_stop_ends_a_silent_connection_before_its_bound() -> None:
    async with running({"a": answering()}) as rig:
        client = await rig.client()
        await client.ask(GET)
        assert await rig.plane.drain(30.0) == 0
        assert await client.rest() == b""


async def test_heads_alike_on_one_connection_are_told_apart_from_others() -> None:
    """A head that is as the one before is known; one that only begins as it did, or comes in parts, is read."""
    same = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\n"
    longer = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\nX-B: 1\r\n\r\n"
    sent = [
        [same + b"ab"],
        [same + b"cd"],
        [longer + b"ef"],
        # Stale bytes of the answer before lie behind these in the buffer.
        [same[:-2], b"\r\ngh"],
        [same, b"ij"],
        [b"HTTP/1.1 103 Early\r\n\r\n" + same + b"kl"],
        [same + b"mn"],
        [same.replace(b"2\r\n\r", b"3\r\n\r") + b"opq"],
        [same[:20]],
    ]

    async def play(conversation: Conversation) -> None:
        for parts in sent:
            await conversation.request()
            for part in parts:
                await conversation.send(part)
                await asyncio.sleep(0.02)
        conversation.close()

    async with running({"a": scripted(play, answers_ok)}) as rig:
        client = await rig.client()
        bodies = []
        for _ in sent[:-1]:
            answer = await client.ask(GET)
            while answer.status == 103:
                answer = await client.answer()
            assert ("x-b" in answer.headers) == (answer.body == b"ef")
            bodies.append(answer.body)
        assert bodies == [b"ab", b"cd", b"ef", b"gh", b"ij", b"kl", b"mn", b"opq"]
        assert rig.sets["a"].connections == 1
        # Cut within its head, though the head before began alike.
        assert (await client.ask(GET)).status == 502


async def test_a_burst_of_requests_larger_than_what_waits_for_each_other() -> None:
    async with running({"a": answering()}) as rig:
        clients = [await rig.client() for _ in range(3 * MAX_POSTERS + 1)]
        for _ in range(3):
            for client in clients:
                client.writer.write(GET + SYNC)
            for client in clients:
                assert (await client.answer()).body == b"ok"
                assert (await client.answer()).body == b"ok"
        assert len(rig.sets["a"].requests) == 6 * len(clients)
