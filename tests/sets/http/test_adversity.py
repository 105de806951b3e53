"""What hostile and unlucky clients do to a set's connection, on a wire that the test holds in its hands."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import pytest

from sets.http import connection, exchange
from tests.sets.http.wire import EchoWorker, Talk

HOST = b"Host: x\r\n"
UPGRADE = HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"


class TestUpgrades:
    """Java's client asks for h2c with its first request, whatever that is; so does `curl --http2`."""

    @pytest.mark.parametrize("size", [1, 7, 100_000_000])
    @pytest.mark.parametrize("length", [1, 5_000, 200_000])
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_the_body_of_a_request_that_asks_for_another_protocol(
        self, chunked: bool, length: int, size: int
    ) -> None:
        if size == 1 and length > 5_000:
            size = 1_000
        body = bytes(number % 251 for number in range(length))
        if chunked:
            sent = b"Transfer-Encoding: chunked\r\n\r\n1\r\n%b\r\n" % body[:1]
            sent += b"%x;a=b\r\n%b\r\n" % (length - 1, body[1:]) if length > 1 else b""
            sent += b"0\r\nA: b\r\n\r\n"
        else:
            sent = b"Content-Length: %d\r\n\r\n%b" % (length, body)
        sent = b"POST /a HTTP/1.1\r\n" + UPGRADE + sent
        talk = Talk()
        await talk.say(*(sent[at : at + size] for at in range(0, len(sent), size)))
        assert [got for _, got in talk.requests] == [body]
        assert talk.statuses() == [204]
        assert b"connection: close\r\n" in talk.wire.sent
        await talk.end()

    @pytest.mark.parametrize(
        "framing", [b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    )
    async def test_half_of_its_body_is_none(self, framing: bytes) -> None:
        talk = Talk()
        await talk.say(b"POST /a HTTP/1.1\r\n" + UPGRADE + framing)
        assert (talk.requests, talk.statuses()) == ([], [])
        talk.connection.eof_received()
        await talk.settle()
        assert (talk.requests, talk.statuses()) == ([], [400])
        await talk.end()

    async def test_broken_chunks_in_it(self) -> None:
        talk = Talk()
        await talk.say(
            b"POST /a HTTP/1.1\r\n" + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"
        )
        assert (talk.requests, talk.statuses()) == ([], [400])
        await talk.end()

    async def test_nothing_behind_it_is_a_request(self) -> None:
        talk = Talk()
        first = b"POST /a HTTP/1.1\r\n" + UPGRADE + b"Content-Length: 3\r\n\r\nabc"
        await talk.say(
            first + b"GET /b HTTP/1.1\r\n" + HOST + b"\r\n", b"GET /c HTTP/1.1\r\n" + HOST + b"\r\n"
        )
        assert [(scope["path"], body) for scope, body in talk.requests] == [("/a", b"abc")]
        assert talk.statuses() == [204]
        await talk.end()


async def say_little(send: Any, *fields: tuple[bytes, bytes]) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2"), *fields]}
    )
    await send({"type": "http.response.body", "body": b"hi"})


async def say_with(field: tuple[bytes, bytes], scope: Any, receive: Any, send: Any) -> None:
    await say_little(send, field)


CHUNKED = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"


class TestBodies:
    async def test_many_small_chunks_cost_what_they_take(self) -> None:
        talk = Talk()
        go = asyncio.Event()
        pieces = []

        async def later(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            more = True
            while more:
                event = await receive()
                pieces.append(event["body"])
                more = event["more_body"]
            await say_little(send)

        talk.worker.asgi = later
        await talk.say(CHUNKED)
        chunks = 0
        while not talk.wire.paused:
            talk.connection.data_received(b"2\r\nab\r\n" * 100)
            chunks += 100
            assert chunks < 10_000
        go.set()
        await talk.say(b"0\r\n\r\n")
        assert b"".join(pieces) == b"ab" * chunks
        assert len(pieces) < 10
        assert talk.statuses() == [200]
        await talk.end()

    async def test_large_pieces_stay_pieces(self) -> None:
        talk = Talk()
        body = b"x" * 1_000_000
        sent = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + body
        await talk.say(*(sent[at : at + 65_536] for at in range(0, len(sent), 65_536)))
        assert [got for _, got in talk.requests] == [body]
        await talk.end()

    async def test_no_100_in_the_middle_of_an_answer(self) -> None:
        talk = Talk()

        async def late_reader(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            event = await receive()
            await send({"type": "http.response.body", "body": event["body"]})

        talk.worker.asgi = late_reader
        await talk.say(b"POST /a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        await talk.say(b"def")
        assert talk.wire.sent.endswith(b"\r\n\r\nabcdef")
        await talk.end()


class TestAnswers:
    @pytest.mark.parametrize("value", [b"a\r\n", b"a\n", b"a\r", b"\r", b"a\r\nb", b"a\r\nset-cookie: b\r\n"])
    async def test_no_line_break_in_a_header_is_ever_sent(self, value: bytes) -> None:
        for field in ((b"x", value), (value, b"x")):
            talk = Talk()
            talk.worker.asgi = partial(say_with, field)
            await talk.say(GET)
            assert talk.statuses() == [500]
            assert value not in talk.wire.sent.partition(b"\r\n\r\n")[0] or value in (b"\r",)
            await talk.end()

    async def test_what_a_cancelled_application_says_behind_a_refusal_is_not_sent(self) -> None:
        talk = Talk()
        ended = []

        async def talks_on(scope: Any, receive: Any, send: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await say_little(send)
                ended.append(True)

        talk.worker.asgi = talks_on
        await talk.say(CHUNKED)
        await talk.say(b"zz\r\n")
        assert (talk.statuses(), ended) == ([400], [True])
        await talk.end()

    async def test_an_early_answer_that_is_read_slowly_comes_whole(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "LINGER_S", 0.01)
        talk = Talk()
        talk.worker.asgi = lambda scope, receive, send: say_little(send)
        talk.wire.unsent_bytes = 100
        await talk.say(CHUNKED)
        assert talk.wire.ended
        await asyncio.sleep(0.05)
        assert talk.worker.nr_conns == 1
        assert not talk.connection.idle
        talk.wire.unsent_bytes = 0
        await asyncio.sleep(0.05)
        assert (talk.worker.nr_conns, talk.wire.aborted) == (0, False)

    async def test_a_client_that_reads_nothing_at_all(self) -> None:
        talk = Talk()
        talk.worker.asgi = lambda scope, receive, send: say_little(send)
        now_s = talk.worker.loop.time()
        talk.connection.check(now_s)
        talk.wire.unsent_bytes = 100
        await talk.say(GET)
        for _ in range(3):
            # It reads now and then.
            talk.connection.check(now_s + 1)
            now_s += connection.WRITE_STALL_S - 2
            talk.connection._deadline_s = now_s + 10_000
            talk.connection.check(now_s)
            assert not talk.connection.closed
            talk.wire.unsent_bytes -= 10
        talk.connection.check(now_s + 1)
        talk.connection.check(now_s + connection.WRITE_STALL_S + 2)
        assert talk.wire.aborted
        await talk.end()

    async def test_the_last_answer_before_requests_that_are_not_read_any_more(self) -> None:
        talk = Talk()
        talk.worker.alive = False
        await talk.say(GET * 3)
        # A plain close would reset the connection, and the answer with it.
        assert (talk.statuses(), talk.wire.ended, talk.worker.nr_conns) == ([204], True, 1)
        await talk.end()


class TestHangingUp:
    async def test_while_nothing_is_read_from_it(self) -> None:
        """A full body and waiting requests keep the connection's end from being told."""
        for sent in (
            b"POST /a HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 9000000\r\n\r\n"
            + b"x" * 2 * exchange.BODY_BYTES,
            GET * 3,
        ):
            talk = Talk()
            ended: list[str] = []

            async def works(scope: Any, receive: Any, send: Any, ended: list[str] = ended) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append("cancelled")

            talk.worker.asgi = works
            ours, theirs = socket.socketpair()
            with ours, theirs:
                talk.wire.socket = ours
                await talk.say(sent)
                talk.connection.data_received(sent[-1:])
                assert talk.wire.paused
                talk.connection.check(talk.worker.loop.time())
                assert not talk.wire.ended
                theirs.close()
                talk.connection.check(talk.worker.loop.time())
                assert talk.wire.aborted
                await talk.end()
            assert ended == ["cancelled"]


async def test_too_many_connections() -> None:
    worker = EchoWorker()
    worker.connections_max = 2
    held = [Talk(worker) for _ in range(2)]
    over = Talk(worker)
    await over.say(GET)
    assert (over.statuses(), over.requests) == ([503], [])
    assert b"retry-after: 1\r\n" in over.wire.sent
    assert (over.wire.aborted, worker.nr_conns) == (False, 2)
    await held[0].end()
    one_more = Talk(worker)
    await one_more.say(GET)
    assert one_more.statuses() == [204]
    await one_more.end()
    await held[1].end()
