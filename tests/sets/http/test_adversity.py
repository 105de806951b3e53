"""What hostile and unlucky clients do to a set's connection, on a wire that the test holds in its hands."""

from __future__ import annotations

import pytest

from tests.sets.http.wire import Talk

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
