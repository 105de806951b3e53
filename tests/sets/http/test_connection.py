"""A set's HTTP, as conversations: these bytes arrive, that is answered. The application says what it was given."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sets.http import connection, exchange
from sets.http.connection import Connection

Scope = dict[str, Any]
Event = dict[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

WAIT_S = 60.0


class Server:
    """Connections on a real socket, with what they need of a worker."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.body_stall_s = 5.0
        self.set_header = b"x-set: t\r\n"
        self.connections: set[Connection] = set()
        self.nr_conns = 0
        self.connections_max = 100
        self.alive = True
        self.asgi: App = self.tell
        self.calls: list[Scope] = []
        self.ended: list[str] = []

    async def tell(self, scope: Scope, receive: Any, send: Any) -> None:
        """Reads the body, answers with what was asked."""
        self.calls.append(scope)
        pieces: list[bytes] = []
        try:
            while True:
                event = await receive()
                if event["type"] != "http.request":
                    self.ended.append("disconnect")
                    break
                pieces.append(event["body"])
                if not event["more_body"]:
                    self.ended.append("whole")
                    break
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        said = {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "body": b"".join(pieces).decode("latin-1"),
        }
        await answer(send, 200, json.dumps(said).encode())


async def answer(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *pieces: str | bytes) -> None:
        data = b"".join(piece.encode("latin-1") if isinstance(piece, str) else piece for piece in pieces)
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(WAIT_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:-2])
        assert headers.get("x-set") == "t" or lines[0].startswith("HTTP/1.1 100 "), lines
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        status, headers = await self.head()
        async with asyncio.timeout(WAIT_S):
            body = await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, json.loads(body) if body[:1] == b"{" else body

    async def rest(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    listener = await server.loop.create_server(lambda: Connection(server), "127.0.0.1", 0)
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection(*listener.sockets[0].getsockname())))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.close()
    for held in list(server.connections):
        held.abort()
    listener.close()


@pytest.fixture
async def client(connect: Callable[[], Awaitable[Client]]) -> Client:
    return await connect()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


HOST = "Host: x\r\n"


class TestRequests:
    async def test_a_request_and_what_it_is_to_the_application(self, server: Server, client: Client) -> None:
        client.send(
            f"POST /a%20b/%C3%A9?q=%20&r HTTP/1.1\r\n{HOST}X-One:  two \t\r\nContent-Length: 3\r\n\r\nabc"
        )
        status, headers, said = await client.answer()
        assert (status, said) == (
            200,
            {"method": "POST", "path": "/a b/é", "query": "q=%20&r", "body": "abc"},
        )
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])
        assert "connection" not in headers
        (scope,) = server.calls
        assert scope["headers"] == [(b"host", b"x"), (b"x-one", b"two"), (b"content-length", b"3")]
        assert (scope["http_version"], scope["raw_path"]) == ("1.1", b"/a%20b/%C3%A9")
        assert scope["client"][0] == "127.0.0.1"

    @pytest.mark.parametrize("size", [1, 2, 7, 10_000])
    async def test_however_it_is_cut(self, client: Client, size: int) -> None:
        request = (
            f"\r\nPOST /one HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nfirst"
            f"POST /two HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"
            f"3;x=y\r\nsec\r\n3\r\nond\r\n0\r\nTrailer: dropped\r\n\r\nGET /three HTTP/1.1\r\n{HOST}\r\n"
        )
        for at in range(0, len(request), size):
            client.send(request[at : at + size])
            if size < 100:
                await client.writer.drain()
                await asyncio.sleep(0)
        said = [(await client.answer())[2] for _ in range(3)]
        assert [(one["path"], one["body"]) for one in said] == [
            ("/one", "first"),
            ("/two", "second"),
            ("/three", ""),
        ]

    async def test_an_address_as_target(self, client: Client) -> None:
        for target, path in (("http://h:1/a?b", "/a"), ("HTTPS://h", "/"), ("http://h?x=1", "/")):
            client.send(f"GET {target} HTTP/1.1\r\n{HOST}\r\n")
            assert (await client.answer())[2]["path"] == path

    async def test_http_1_0(self, client: Client) -> None:
        client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "keep-alive")
        client.send("GET /a HTTP/1.0\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.rest() == b""

    async def test_an_upgrade_is_not_taken_and_nothing_behind_it_is_read(
        self, server: Server, client: Client
    ) -> None:
        client.send(
            f"GET /a HTTP/1.1\r\n{HOST}Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            f"GET /b HTTP/1.1\r\n{HOST}\r\n",
        )
        status, headers, said = await client.answer()
        assert (status, said["path"], headers["connection"]) == (200, "/a", "close")
        assert await client.rest() == b""
        assert len(server.calls) == 1

    async def test_many_pipelined_requests_are_answered_in_order(
        self, server: Server, client: Client
    ) -> None:
        async def slow(scope: Scope, receive: Any, send: Any) -> None:
            await asyncio.sleep(0.01 if scope["path"] == "/0" else 0)
            await server.tell(scope, receive, send)

        server.asgi = slow
        client.send("".join(f"GET /{number} HTTP/1.1\r\n{HOST}\r\n" for number in range(200)))
        for number in range(200):
            assert (await client.answer())[2]["path"] == f"/{number}"

    async def test_too_many_pipelined_requests(self, server: Server, client: Client) -> None:
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\n" * (connection.PIPELINED + 50))
        statuses: list[int] = []
        while not statuses or statuses[-1] == 200:
            statuses.append((await client.answer())[0])
        assert statuses[-1] == 400
        assert await client.rest() == b""
        assert len(server.calls) == len(statuses) - 1

    async def test_a_body_behind_a_pipelined_request_still_comes(self, client: Client) -> None:
        body = "x" * 2_000_000
        client.send(
            f"GET /a HTTP/1.1\r\n{HOST}\r\nPOST /b HTTP/1.1\r\n{HOST}Content-Length: {len(body)}\r\n\r\n",
            body,
        )
        assert (await client.answer())[2]["path"] == "/a"
        assert (await client.answer())[2]["body"] == body

    @pytest.mark.parametrize("size", [65_536, 65_540, 300_000, 3_000_000])
    async def test_large_bodies_and_what_follows_each(self, client: Client, size: int) -> None:
        bodies = ["a" * size, "b" * (size + 1), "c" * 5, "d" * size]
        for number, body in enumerate(bodies):
            client.send(f"POST /{number} HTTP/1.1\r\n{HOST}Content-Length: {len(body)}\r\n\r\n", body)
        client.send("nonsense\r\n\r\n")
        for number, body in enumerate(bodies):
            said = (await client.answer())[2]
            assert (said["path"], said["body"]) == (f"/{number}", body)
        assert (await client.answer())[0] == 400


REFUSED = [
    ("GET /a HTTP/1.1\r\n\r\n", 400, "Host is missing"),
    (f"GET /a HTTP/1.1\r\n{HOST}{HOST}\r\n", 400, "Host came twice"),
    (f"GET /a HTTP/1.1\r\n{HOST}Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n", 400, "Content-Type came twice"),
    (f"GET /a HTTP/2.0\r\n{HOST}\r\n", 400, "HTTP/2.0"),
    ("GET /a\r\n\r\n", 400, "request line"),
    (f"GET /a#b HTTP/1.1\r\n{HOST}\r\n", 400, "fragment"),
    (f"GET ftp://a/b HTTP/1.1\r\n{HOST}\r\n", 400, "target"),
    (f"CONNECT a:1 HTTP/1.1\r\n{HOST}\r\n", 400, "CONNECT"),
    (f"BREW /a HTTP/1.1\r\n{HOST}\r\n", 501, "method"),
    (f"SOURCE /a ICE/1.0\r\n{HOST}\r\n", 400, "ICE/1.0"),
    (f"OPTIONS /a RTSP/1.0\r\n{HOST}\r\n", 400, "RTSP/1.0"),
    (f"GET /a RTSP/1.0\r\n{HOST}\r\n", 400, "RTSP/1.0"),
    (f"GET  /a HTTP/1.1\r\n{HOST}\r\n", 400, "single spaces"),
    ("GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "Host"),
    ("GET /a HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "Host"),
    (f"GET http://u@a/ HTTP/1.1\r\n{HOST}\r\n", 400, "host"),
    (f"GET /a HTTP/1.1\r\n{HOST}Expect: tea\r\n\r\n", 417, "100-continue"),
    (f"GET /a HTTP/1.1\n{HOST}\n", 400, "CR LF"),
    (f"GET /a HTTP/1.1\r\n{HOST}A: b\r\n c\r\n\r\n", 400, ""),
    (f"GET /a HTTP/1.1\r\n{HOST}A : b\r\n\r\n", 400, ""),
    (f"GET /\xff HTTP/1.1\r\n{HOST}\r\n", 400, ""),
    (f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, ""),
    (f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, ""),
    (f"POST /a HTTP/1.1\r\n{HOST}Content-Length: 99999999999999999999\r\n\r\n", 400, "18 digits"),
    (f"POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "chunked"),
    (f"POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip\r\n\r\n", 501, "chunked"),
    ("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "HTTP/1.0"),
    (f"GET /{'a' * 70_000} HTTP/1.1\r\n{HOST}\r\n", 414, "64 KiB"),
    (f"GET /a HTTP/1.1\r\n{HOST}A: {'a' * 20_000}\r\n\r\n", 431, "16384"),
    (f"GET /a HTTP/1.1\r\n{HOST}" + "A: b\r\n" * 120 + "\r\n", 431, "100 fields"),
    (f"GET /a HTTP/1.1\r\n{HOST}A: {'a' * 400_000}", 431, "too large"),
    (f"POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "chunk"),
]  # fmt: skip


class TestRefusals:
    @pytest.mark.parametrize(("request_bytes", "status", "word"), REFUSED)
    async def test_what_is_refused(
        self, server: Server, client: Client, request_bytes: str, status: int, word: str
    ) -> None:
        client.send(request_bytes)
        found, headers, problem = await client.answer()
        assert (found, headers["connection"]) == (status, "close")
        assert headers["content-type"] == "application/problem+json"
        assert word in problem["detail"]
        assert problem["executed"] is False
        assert await client.rest() == b""
        assert server.calls == []

    async def test_what_came_before_is_answered_first(self, server: Server, client: Client) -> None:
        client.send(f"GET /a HTTP/1.1\r\n{HOST}\r\nnonsense\r\n\r\n")
        assert (await client.answer())[2]["path"] == "/a"
        assert (await client.answer())[0] == 400
        assert await client.rest() == b""

    async def test_a_refusal_within_a_body_ends_the_application(self, server: Server, client: Client) -> None:
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await until(lambda: server.calls != [])
        client.send("zz\r\n")
        status, _, problem = await client.answer()
        assert (status, problem["executed"]) == (400, True)
        await until(lambda: server.ended != [])
        assert server.ended == ["cancelled"]

    async def test_endless_trailers_are_bounded(self, server: Server, client: Client) -> None:
        client.send(f"POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: ")
        await until(lambda: server.calls != [])
        client.send("a" * 400_000)
        assert (await client.answer())[0] == 431

    async def test_a_refusal_is_read_by_who_sends_on(self, client: Client) -> None:
        client.send(f"GET /a#b HTTP/1.1\r\n{HOST}\r\n")
        client.send(b"x" * 8_000_000)
        assert (await client.answer())[0] == 400


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
