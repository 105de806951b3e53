"""Clients and sets that are slow, stall, or end a body too early."""

from __future__ import annotations

import asyncio

from router.wire.limits import Limits
from tests.router.relay.plays import (
    GET,
    SYNC,
    scripted,
)
from tests.router.rig import (
    Conversation,
    answering,
    eventually,
    running,
)


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
    begun = asyncio.Event()

    async def reads(conversation: Conversation) -> None:
        await conversation.head()
        begun.set()
        bodies.append(await conversation.reader.read())

    async with running({"a": scripted(reads)}) as rig:
        client = await rig.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        await begun.wait()
        client.writer.write_eof()
        await eventually(lambda: bodies == [b"abc"])


async def test_a_bad_chunk_in_a_running_upload_is_a_400_and_ends_the_request_at_the_set() -> None:
    bodies = []
    begun = asyncio.Event()

    async def reads(conversation: Conversation) -> None:
        await conversation.head()
        begun.set()
        bodies.append(await conversation.reader.read())

    async with running({"a": scripted(reads)}) as rig:
        client = await rig.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await begun.wait()
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
