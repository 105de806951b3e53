"""A request on its way: streaming in both directions, early answers, kept connections."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from router.wire.limits import Limits
from router.wire.stream import MAX_POSTERS
from tests.router.relay.plays import (
    ASYNC,
    FULL,
    GET,
    SYNC,
    answers_ok,
    closes_at_second_request,
    resets_after_request,
    scripted,
)
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
    unsent: Callable[[], int] = int

    async def endless(conversation: Conversation) -> None:
        nonlocal sent, unsent
        await conversation.request()
        unsent = conversation.writer.transport.get_write_buffer_size
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await conversation.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536

    async with running({"a": scripted(endless)}) as rig:
        client = await rig.client()
        await client.send(GET)
        await client.reader.readuntil(b"\r\n\r\n")
        before, quiet = sent, 0
        while quiet < 20:  # Until the pipe is full: the set has more, and can send none of it.
            await asyncio.sleep(0.02)
            before, quiet = sent, quiet + 1 if before == sent and unsent() else 0
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
