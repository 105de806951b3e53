"""Requests to a set, as conversations: these bytes arrive, that the application is given, or the refusal is this."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from sets.http import connection
from tests.sets.http.served import HOST, Client, Scope, Server, until


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
