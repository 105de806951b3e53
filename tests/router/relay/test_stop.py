"""Reloads under load, and the end of a router: requests finish, connections close."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.router.relay.plays import (
    GET,
    SYNC,
    answers_ok,
    scripted,
)
from tests.router.rig import (
    OK,
    Conversation,
    answering,
    eventually,
    running,
    table_for,
)


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
