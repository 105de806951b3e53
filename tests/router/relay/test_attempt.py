"""An attempt and its exchange know each other while it lasts: once it is over, both are free without the collector."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from router.relay.attempt import Attempt
from router.relay.exchange import Exchange
from tests.router.rig import Conversation, Ended, FakeSet, Play, eventually, running

RUN = b"POST /v1/run/cat:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"


def held() -> int:
    return sum(isinstance(each, Attempt | Exchange) for each in gc.get_objects())


def answering_once(answer: bytes) -> Callable[[FakeSet], Play]:
    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            fake.requests.append(await conversation.request())
            await conversation.send(answer)
            conversation.close()

        return play

    return make


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("answer", [SMALL, CHUNKED, UNTIL_CLOSE])
async def test_a_request_that_went_well_stays_in_no_circle(answer: bytes) -> None:
    async with running({"a": answering_once(answer)}) as rig:
        client = await rig.client()
        for _ in range(5):
            assert (await client.ask(RUN)).body == b"ok"
        assert held() == 0


@pytest.mark.usefixtures("no_collector")
async def test_a_request_whose_client_left_stays_in_no_circle() -> None:
    left = False

    def silent(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            nonlocal left
            fake.requests.append(await conversation.request())
            with pytest.raises(Ended):
                await conversation.head()
            left = True

        return play

    async with running({"a": silent}) as rig:
        client = await rig.client()
        await client.send(RUN)
        await eventually(lambda: bool(rig.sets["a"].requests))
        assert held() == 2
        client.close()
        await eventually(lambda: left)
        assert held() == 0
