"""Request ids, tasks asked of their owner, sets that are full or draining."""

from __future__ import annotations

import asyncio
import re

from msgspec.structs import replace

from router.routing.table import SetState, Table, Weights
from tests.router.relay.plays import (
    GET,
    SYNC,
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
