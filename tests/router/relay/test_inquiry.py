"""Idempotency keys over weight changes: sets that may know a key are asked before it becomes new work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from router.relay import inquiry
from tests.router.rig import Conversation, FakeSet, Play, Rig, eventually, running, table_for

KEY = b"key-1"


def run(key: bytes = KEY, body: bytes = b"hi", more: bytes = b"") -> bytes:
    return (
        b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nPrefer: respond-async\r\nX-Account: acme\r\n"
        b"Idempotency-Key: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (key, len(body), more, body)
    )


def knowing(
    *keys: bytes, silent: bool = False, receiving: bool = False, held: asyncio.Event | None = None
) -> Callable[[FakeSet], Play]:
    """A set that knows these keys and learns those of its runs; `silent`: it never answers when asked.

    `receiving`: it has no task of the keys yet. `held`: it answers runs once this is set.
    """

    def make(fake: FakeSet) -> Play:
        known = set(keys)

        async def play(conversation: Conversation) -> None:
            while True:
                head, body = await conversation.request()
                fake.requests.append((head, body))
                key = next(
                    (
                        line[17:]
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"idempotency-key: ")
                    ),
                    b"",
                )
                if head.startswith(b"GET /v1/idempotency"):
                    if silent:
                        await asyncio.sleep(30)
                    status = b"200 OK" if key in known else b"404 Not Found"
                    if receiving and key in known:
                        status = b"202 Accepted"
                else:
                    if held is not None:
                        await held.wait()
                    status = b"202 Accepted"
                    known.add(key)
                document = json.dumps({"set": fake.name}).encode()
                await conversation.send(
                    b"HTTP/1.1 %b\r\nX-Set: %b\r\nContent-Length: %d\r\n\r\n%b"
                    % (status, fake.name.encode(), len(document), document)
                )

        return play

    return make


def heads(rig: Rig, name: str) -> list[bytes]:
    return [head.split(b" HTTP")[0] for head, _ in rig.sets[name].requests]


def reweigh(rig: Rig, **weights: float) -> None:
    rig.traffic.adopt(table_for({name: fake.port for name, fake in rig.sets.items()}, weights))


async def test_a_key_used_before_the_weights_changed_goes_back_to_the_set_that_knows_it() -> None:
    async with running({"a": knowing(), "b": knowing()}) as rig:
        assert (await rig.ask(run())).headers["x-set"] == "a"
        reweigh(rig, a=0, b=100)
        answer = await rig.ask(run())
        assert (answer.status, answer.headers["x-set"]) == (202, "a")
        assert heads(rig, "b") == []
        asked = next(head for head, _ in rig.sets["a"].requests if head.startswith(b"GET"))
        assert b"x-account: acme\r\n" in asked.lower()
        assert [body for _, body in rig.sets["a"].requests] == [b"hi", b"", b"hi"]


async def test_a_new_key_is_new_work_where_it_belongs() -> None:
    async with running({"a": knowing(), "b": knowing()}) as rig:
        reweigh(rig, a=0, b=100)
        assert (await rig.ask(run())).headers["x-set"] == "b"
        assert heads(rig, "a") == [b"GET /v1/idempotency"]
        # Without a key, and for a sync run, nobody is asked.
        await rig.ask(run().replace(b"Idempotency-Key: key-1\r\n", b""))
        await rig.ask(run().replace(b"Prefer: respond-async\r\n", b""))
        assert len(heads(rig, "a")) == 1


async def test_nobody_is_asked_while_nothing_changed() -> None:
    async with running({"a": knowing(), "b": knowing()}, weights={"a": 50, "b": 50}) as rig:
        for number in range(20):
            await rig.ask(run(b"k%d" % number))
        assert not any(head.startswith(b"GET") for name in "ab" for head in heads(rig, name))


async def test_a_long_body_is_not_read_before_the_answer_and_arrives_whole() -> None:
    body = bytes(range(256)) * 4096  # 1 MiB
    async with running({"a": knowing(KEY), "b": knowing()}) as rig:
        reweigh(rig, a=0, b=100)
        answer = await rig.ask(run(body=body))
        assert answer.headers["x-set"] == "a"
        assert rig.sets["a"].requests[-1][1] == body
        chunked = run().replace(b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n")
        chunked = chunked[:-2] + b"3\r\nabc\r\n0\r\n\r\n"
        assert (await rig.ask(chunked)).headers["x-set"] == "a"


async def test_a_set_that_is_receiving_the_first_call_gets_its_twin() -> None:
    async with running({"a": knowing(KEY, receiving=True), "b": knowing()}) as rig:
        reweigh(rig, a=0, b=100)
        assert (await rig.ask(run())).headers["x-set"] == "a"
        assert heads(rig, "b") == []


async def test_a_twin_follows_a_call_that_its_set_has_not_answered() -> None:
    """The router does not ask that set about the key, because the set may not have read the call yet."""
    held = asyncio.Event()
    async with running({"a": knowing(held=held), "b": knowing()}) as rig:
        first = asyncio.ensure_future(rig.ask(run()))
        await eventually(lambda: heads(rig, "a") == [b"POST /v1/run/cat"])
        reweigh(rig, a=0, b=100)
        twin = asyncio.ensure_future(rig.ask(run()))
        other = await rig.ask(run(b"other"))
        await eventually(lambda: heads(rig, "a").count(b"POST /v1/run/cat") == 2)
        held.set()
        assert [answer.headers["x-set"] for answer in (await first, await twin, other)] == ["a", "a", "b"]
        # Only the other key was asked about.
        assert heads(rig, "a").count(b"GET /v1/idempotency") == 1


async def test_a_set_that_cannot_tell_holds_nobody_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiry, "ASK_TIMEOUT_S", 0.3)
    async with running({"a": knowing(silent=True), "b": knowing()}) as rig:
        reweigh(rig, a=0, b=100)
        assert (await rig.ask(run())).headers["x-set"] == "b"


async def test_a_key_that_is_known_is_never_sent_elsewhere() -> None:
    """Another set would do the work twice."""

    def dying(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            head, _ = await conversation.request()
            fake.requests.append((head, b""))
            if head.startswith(b"GET"):
                await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            else:
                body = b'{"executed": false}'
                await conversation.send(
                    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                )

        return play

    async with running({"a": dying, "b": knowing()}) as rig:
        reweigh(rig, a=0, b=100)
        answer = await rig.ask(run())
        assert answer.status == 503
        assert heads(rig, "b") == []


async def test_a_client_that_leaves_while_others_are_asked_leaves_nothing_behind() -> None:
    async with running({"a": knowing(silent=True), "b": knowing()}) as rig:
        reweigh(rig, a=0, b=100)
        client = await rig.client()
        await client.send(run())
        await eventually(lambda: heads(rig, "a") == [b"GET /v1/idempotency"])
        client.close()
        await eventually(lambda: rig.plane.active == 0)
        assert rig.traffic.cancelled == 1
        assert heads(rig, "b") == []
        assert (await rig.ask(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")).headers["x-set"] == "b"


async def test_a_connection_goes_on_after_it() -> None:
    async with running({"a": knowing(KEY), "b": knowing()}) as rig:
        reweigh(rig, a=0, b=100)
        client = await rig.client()
        await client.send(run() + run(b"other") + run())
        answers = [await client.answer() for _ in range(3)]
        assert [answer.headers["x-set"] for answer in answers] == ["a", "b", "a"]
