"""A set's connection, as conversations: bodies, answers, and what takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sets.http import connection, exchange
from tests.sets.http.served import HOST, WAIT_S, Client, Scope, Server, answer, until


class TestBodies:
    async def test_100_continue_when_the_body_is_wanted(self, client: Client) -> None:
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
        assert (await client.head())[0] == 100
        client.send("abc")
        assert (await client.answer())[2]["body"] == "abc"

    async def test_no_100_for_a_body_that_is_not_wanted(self, server: Server, client: Client) -> None:
        server.asgi = lambda scope, receive, send: answer(send, 413, b"no")
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert await client.rest() == b""

    async def test_an_early_answer_reaches_who_still_sends(self, server: Server, client: Client) -> None:
        server.asgi = lambda scope, receive, send: answer(send, 413, b"no")
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 9000000\r\n\r\n", b"x" * 5_000_000)
        assert (await client.answer())[0] == 413
        assert await client.rest() == b""

    async def test_what_is_not_taken_is_not_read(self, server: Server, client: Client) -> None:
        go = asyncio.Event()

        async def later(scope: Scope, receive: Any, send: Any) -> None:
            await go.wait()
            await server.tell(scope, receive, send)

        server.asgi = later
        client.writer.transport.set_write_buffer_limits(high=100_000_000)
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 50000000\r\n\r\n", b"x" * 50_000_000)
        (held,) = server.connections
        await asyncio.sleep(0.2)
        reading = held._reading
        assert reading is not None
        assert reading._buffered < exchange.BODY_BYTES + 300_000
        go.set()
        assert len((await client.answer())[2]["body"]) == 50_000_000

    async def test_a_body_that_stalls(self, server: Server, connect: Callable[[], Awaitable[Client]]) -> None:
        server.body_stall_s = 0.05
        client = await connect()
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 9\r\n\r\nabc")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"], server.ended) == (200, "close", ["disconnect"])

    async def test_a_client_that_goes_away_ends_the_application(self, server: Server, client: Client) -> None:
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 9\r\n\r\nabc")
        await until(lambda: server.calls != [])
        client.writer.transport.abort()
        await until(lambda: server.ended != [])
        await until(lambda: server.nr_conns == 0)
        assert server.connections == set()

    async def test_half_a_body_and_an_end_is_answered(self, server: Server, client: Client) -> None:
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 9\r\n\r\nabc")
        await until(lambda: server.calls != [])
        client.writer.write_eof()
        status, _, problem = await client.answer()
        assert (status, problem["executed"]) == (400, True)
        await until(lambda: server.ended == ["cancelled"])


class TestAnswers:
    async def test_a_stream_is_chunked_and_ends(self, server: Server, client: Client) -> None:
        pieces = [b"one", b"", b"x" * 100_000, b"last"]

        async def stream(scope: Scope, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})

        server.asgi = stream
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\n")
        _, headers = await client.head()
        assert headers["transfer-encoding"] == "chunked"
        expected = b"3\r\none\r\n186a0\r\n" + pieces[2] + b"\r\n4\r\nlast\r\n0\r\n\r\n"
        assert await client.reader.readexactly(len(expected)) == expected
        client.send("GET /a HTTP/1.0\r\n\r\n")
        _, headers = await client.head()
        assert "transfer-encoding" not in headers
        assert await client.rest() == b"".join(pieces)

    @pytest.mark.parametrize("length", [None, 100])
    @pytest.mark.parametrize("how", ["returns", "raises"])
    async def test_what_is_broken_off_never_looks_whole(
        self, server: Server, client: Client, length: int | None, how: str
    ) -> None:
        async def breaks(scope: Scope, receive: Any, send: Any) -> None:
            headers = [] if length is None else [(b"content-length", b"%d" % length)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            if how == "raises":
                raise RuntimeError("a bug")

        server.asgi = breaks
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\n")
        await client.head()
        assert await client.rest() == (b"4\r\nhalf\r\n" if length is None else b"half")

    async def test_a_bug_before_the_answer(self, server: Server, client: Client) -> None:
        async def fails(scope: Scope, receive: Any, send: Any) -> None:
            raise RuntimeError("a bug")

        server.asgi = fails
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\n")
        status, headers, problem = await client.answer()
        assert (status, headers["connection"], problem["status"]) == (500, "close", 500)

    @pytest.mark.parametrize(("status", "method"), [(204, "GET"), (304, "GET"), (200, "HEAD")])
    async def test_answers_without_a_body(
        self, server: Server, client: Client, status: int, method: str
    ) -> None:
        async def stream(scope: Scope, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b"dropped"})

        server.asgi = stream
        client.send(f"{method} /a HTTP/1.1\r\n{HOST}\r\n")
        assert (await client.head())[0] == status
        server.asgi = server.tell
        client.send(f"GET /b HTTP/1.1\r\n{HOST}\r\n")
        assert (await client.answer())[2]["path"] == "/b"

    async def test_a_line_break_in_a_header_is_never_sent(self, server: Server, client: Client) -> None:
        server.asgi = lambda scope, receive, send: answer(send, 200, b"", (b"x", b"a\r\nset-cookie: b"))
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\n")
        status, headers, _ = await client.answer()
        assert (status, "set-cookie" in headers) == (500, False)

    async def test_a_reader_that_stops_holds_little(self, server: Server, client: Client) -> None:
        sent = 0

        async def stream(scope: Scope, receive: Any, send: Any) -> None:
            nonlocal sent
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(500):
                await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
                sent += 100_000
            await send({"type": "http.response.body"})

        server.asgi = stream
        client.reader._limit = 1_000  # type: ignore[attr-defined]
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\n")
        await asyncio.sleep(0.3)
        assert sent < 20_000_000
        client.reader._limit = 1 << 20  # type: ignore[attr-defined]
        client.send("")
        async with asyncio.timeout(WAIT_S):
            end = b""
            while not end.endswith(b"\r\n0\r\n\r\n"):
                end = end[-100:] + await client.reader.read(1 << 20)
        assert sent == 50_000_000

    async def test_when_the_worker_ends_the_connection_does(self, server: Server, client: Client) -> None:
        server.alive = False
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\n")
        _, headers, _ = await client.answer()
        assert headers["connection"] == "close"
        assert await client.rest() == b""


class TestTime:
    @pytest.mark.parametrize("begun", ["", "GET /a HT"])
    async def test_a_head_that_does_not_come(self, server: Server, client: Client, begun: str) -> None:
        client.send(begun)
        await until(lambda: len(server.connections) == 1)
        await asyncio.sleep(0.02)
        (held,) = server.connections
        held.check(server.loop.time() + connection.HEAD_TIMEOUT_S - 1)
        assert not held.closed
        held.check(server.loop.time() + connection.HEAD_TIMEOUT_S + 1)
        assert await client.rest() == b""

    async def test_an_idle_connection(self, server: Server, client: Client) -> None:
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\n")
        await client.answer()
        (held,) = server.connections
        assert held.idle
        held.check(server.loop.time() + connection.KEEP_ALIVE_S - 1)
        assert not held.closed
        held.check(server.loop.time() + connection.KEEP_ALIVE_S + 1)
        assert await client.rest() == b""

    async def test_a_request_that_is_served_may_take_its_time(self, server: Server, client: Client) -> None:
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\na")
        await until(lambda: server.calls != [])
        (held,) = server.connections
        assert not held.idle
        held.check(server.loop.time() + 1_000)
        client.send("bc")
        assert (await client.answer())[2]["body"] == "abc"
