"""Which requests the data plane tells a rollout of as waiting for an answer, from when, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from router.counting.observer import Observer
from router.wire.limits import Limits
from tests.router.rig import OK, Conversation, FakeSet, Play, Rig, eventually, running

SYNC = b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\nContent-Length: 2\r\n\r\n"


def watched(rig: Rig, canary: str = "b") -> Observer:
    """Have the plane's requests compared: all keys are those of `canary`."""
    observer = Observer()
    default = rig.plane.traffic.table.default
    observer.watch(1, canary, default)
    rig.plane.traffic.observer = observer
    return observer


def open_at_canary(observer: Observer) -> int:
    return sum(observer.seen(monotonic())[0].open.values())


def on_call(go: asyncio.Event, *parts: bytes) -> Callable[[FakeSet], Play]:
    """A set that sends each part of its answer when `go` is set."""

    def make(_: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            await conversation.request()
            for part in parts:
                await go.wait()
                go.clear()
                await conversation.send(part)
            await conversation.head()

        return play

    return make


async def test_a_request_is_open_from_its_last_byte_to_the_first_of_its_answer() -> None:
    go = asyncio.Event()
    async with running({"b": on_call(go, OK[:-2], OK[-2:])}) as rig:
        observer = watched(rig)
        client = await rig.client()
        await client.send(SYNC)
        await eventually(lambda: rig.plane.active == 1)
        assert open_at_canary(observer) == 0, "an upload that never ends is not the set's fault"
        await client.send(b"hi")
        await eventually(lambda: open_at_canary(observer) == 1)
        go.set()
        await eventually(lambda: open_at_canary(observer) == 0)
        assert rig.plane.active == 1, "a client may read an answer as slowly as it likes"
        go.set()
        assert (await client.answer()).status == 200
        assert observer.canary.ok == 1


async def test_a_client_that_gives_up_ends_the_wait_and_is_counted() -> None:
    async with running({"b": on_call(asyncio.Event(), OK)}) as rig:
        observer = watched(rig)
        client = await rig.client()
        await client.send(SYNC + b"hi")
        await eventually(lambda: open_at_canary(observer) == 1)
        client.close()
        await eventually(lambda: rig.plane.active == 0)
        assert open_at_canary(observer) == 0
        assert (observer.canary.client_left, sum(observer.canary.unanswered.values())) == (1, 1)


async def test_an_upload_that_its_client_gives_up_says_nothing() -> None:
    async with running({"b": on_call(asyncio.Event(), OK)}) as rig:
        observer = watched(rig)
        client = await rig.client()
        await client.send(SYNC)
        await eventually(lambda: rig.plane.active == 1)
        client.close()
        await eventually(lambda: rig.plane.active == 0)
        assert observer.canary.requests == observer.canary.measured == 0


async def test_an_upload_that_never_ends_says_nothing_when_its_time_is_over() -> None:
    async with running({"b": on_call(asyncio.Event(), OK)}, limits=Limits(total_s=0.1)) as rig:
        observer = watched(rig)
        client = await rig.client()
        await client.send(SYNC)
        assert (await client.answer()).status == 504
        assert observer.canary.requests == observer.canary.measured == 0
        client = await rig.client()
        await client.send(SYNC + b"hi")
        assert (await client.answer()).status == 504
        assert observer.canary.error == 1, "this one was whole"


async def test_a_request_that_another_set_takes_over_waits_at_home_no_longer() -> None:
    go = asyncio.Event()

    def resetting(_: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            await conversation.request()
            conversation.reset()

        return play

    async with running(
        {"b": resetting, "a": on_call(go, OK)},
        weights={"b": 99.99, "a": 0.01},
    ) as rig:
        observer = Observer()
        default = rig.plane.traffic.table.default
        # Equal cohorts, so that all of b's keys are compared.
        observer.watch(1, "b", default)
        rig.plane.traffic.observer = observer
        client = await rig.client()
        await client.send(SYNC + b"hi")
        await eventually(lambda: rig.sets["a"].connections == 1)
        assert open_at_canary(observer) == 0
        assert observer.canary.error == 1
        go.set()
        assert (await client.answer()).status == 200
