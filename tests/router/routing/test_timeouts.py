"""The `timeouts` section as the data plane keeps it: for requests in work too, and gone with the section."""

from __future__ import annotations

from tests.router.rig import Conversation, FakeSet, Play, running, table_for

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


def silent(fake: FakeSet) -> Play:
    async def play(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.request()

    return play


async def test_a_first_byte_that_does_not_come_in_time() -> None:
    async with running({"a": silent}, more="timeouts: {first_byte: 100ms}") as rig:
        answer = await rig.ask(GET)
        assert (answer.status, answer.problem["type"].rpartition("/")[2]) == (504, "router-answer-timeout")
        assert "0.1 s" in answer.problem["detail"]


async def test_a_reload_counts_for_requests_in_work_and_for_pools() -> None:
    async with running({"a": silent}) as rig:
        ports = {"a": rig.sets["a"].port}
        usual = rig.plane.limits
        client = await rig.client()
        await client.send(GET)
        rig.traffic.adopt(table_for(ports, more="timeouts: {total: 50ms, connect: 70ms}"))
        assert (await client.answer()).status == 504
        assert rig.traffic.pools["a"].limits.connect_s == 0.07
        rig.traffic.adopt(table_for(ports))
        assert rig.plane.limits == usual
        assert rig.traffic.pools["a"].limits == usual


async def test_a_client_that_is_too_slow_with_its_head() -> None:
    async with running({"a": silent}, more="timeouts: {header: 100ms}") as rig:
        client = await rig.client()
        await client.send(b"GET /x HT")
        assert (await client.answer()).status == 408
