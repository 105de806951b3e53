"""What a connection held is free once it is closed, without the collector, which comes rarely."""

from __future__ import annotations

import asyncio
import gc

import pytest

from router.wire.downstream import ClientConnection
from router.wire.stream import Stream
from router.wire.upstream import SetConnection
from tests.router.rig import Conversation, FakeSet, Play, running


def held() -> list[str]:
    kinds = (ClientConnection, SetConnection, Stream)
    return [type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds)]


def answer_and_close(fake: FakeSet) -> Play:
    async def play(conversation: Conversation) -> None:
        fake.requests.append(await conversation.request())
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")

    return play


@pytest.mark.usefixtures("no_collector")
async def test_closed_connections_stay_in_no_circle() -> None:
    async with running({"a": answer_and_close}) as rig:
        before = held()
        clients = [await rig.client() for _ in range(20)]
        for client in clients:
            await client.send(b"POST /v1/run/cat:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
            assert b"200 OK" in await client.reader.read(1000)
        assert held().count("ClientConnection") == 20 + before.count("ClientConnection")
        for client in clients:
            client.writer.close()
        for _ in range(200):
            if len(held()) <= len(before):
                break
            await asyncio.sleep(0.02)
        assert held() == before
