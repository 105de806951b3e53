"""TLS for clients: bodies of any size, broken handshakes, and ends that are told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import ssl
from collections.abc import Callable

import pytest

from router.wire.certificate import TlsFiles
from tests.router.rig import OK, Conversation, FakeSet, Play, answering, eventually
from tests.router.wire.certificates import GET, connect, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_requests_on_one_connection(
    certificates: tuple[TlsFiles, TlsFiles], version: ssl.TLSVersion
) -> None:
    async with serving(certificates[0]) as rig:
        client = await connect(rig, certificates[0], tls=version)
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        for _ in range(3):
            assert (await client.ask(GET)).body == b"ok"
        assert (await client.ask(GET * 2)).status == 200  # Pipelined.
        assert (await client.answer()).status == 200
        head, _ = rig.sets["a"].requests[0]
        assert b"\r\nX-Forwarded-Proto: https\r\n" in head


async def test_large_bodies_both_ways_to_a_slow_reader(certificates: tuple[TlsFiles, TlsFiles]) -> None:
    size = 8 * 1024 * 1024
    body = os.urandom(size)

    def echo(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            _, got = await conversation.request()
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(got), got))

        return play

    async with serving(certificates[0], a=echo) as rig:
        client = await connect(rig, certificates[0])
        await client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (size, body))
        await asyncio.sleep(0.3)  # The answer piles up in every buffer on the way.
        answer = await client.answer()
        assert answer.body == body


async def test_a_body_in_records_of_any_size(certificates: tuple[TlsFiles, TlsFiles]) -> None:
    """Full ones are read several at a time, the others one by one, and none is lost or torn."""
    rng = random.Random(1)
    got = bytearray()

    def taking(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            _, body = await conversation.request()
            got.extend(body)
            await conversation.send(OK)

        return play

    sizes = [rng.choice((1, 100, 16383, 16384, 16384, 16384, 16384)) for _ in range(300)]
    body = os.urandom(sum(sizes))
    async with serving(certificates[0], a=taking) as rig:
        client = await connect(rig, certificates[0])
        await client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body))
        at = 0
        for size in sizes:  # Each write is a record.
            await client.send(body[at : at + size])
            at += size
        # The next request's first byte comes in the record of the body's last.
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert bytes(got) == body


async def test_an_end_right_behind_full_records_is_seen(certificates: tuple[TlsFiles, TlsFiles]) -> None:
    """The client says that nothing more comes, without closing: read with the records, no event would tell of it."""
    head = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n"
    heard: list[int] = []

    def counting(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            await conversation.head()
            heard.append(len(await conversation.reader.read(-1)))

        return play

    def send_and_say_end(port: int) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(certificates[0].cert))
        sock = context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), 10), server_hostname="one.test"
        )
        sock.sendall(head + bytes(16 * 16384 - len(head)))  # The last record is a full one, too.
        sock.settimeout(0)
        with contextlib.suppress(ssl.SSLWantReadError):
            sock.unwrap()  # Said; the other side's word is not waited for.
        return sock

    async with serving(certificates[0], a=counting) as rig:
        sock = await asyncio.to_thread(send_and_say_end, rig.port)
        await eventually(lambda: len(heard) == 1)
        await eventually(lambda: not rig.plane.clients)
        assert heard == [16 * 16384 - len(head)]
        assert rig.traffic.cancelled == 1
        sock.close()


async def test_an_answer_that_breaks_off_is_seen(certificates: tuple[TlsFiles, TlsFiles]) -> None:
    def cut(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            await conversation.request()
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            conversation.close()

        return play

    async with serving(certificates[0], a=cut) as rig:
        client = await connect(rig, certificates[0])
        with pytest.raises(asyncio.IncompleteReadError):
            await client.ask(GET)


async def test_a_close_says_so(certificates: tuple[TlsFiles, TlsFiles]) -> None:
    async with serving(certificates[0], a=answering(OK)) as rig:
        client = await connect(rig, certificates[0])
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await client.rest()).endswith(b"ok")  # No ragged end: that would raise.
        await eventually(lambda: not rig.plane.clients)


async def test_no_tls_and_half_a_handshake_cost_a_connection_alone(
    certificates: tuple[TlsFiles, TlsFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.wire.tls.HANDSHAKE_S", 0.2)
    async with serving(certificates[0]) as rig:
        plain = await rig.client()
        await plain.send(GET)
        await plain.rest()
        silent = await rig.client()
        assert await silent.rest() == b""
        gone = await rig.client()
        gone.close()
        await eventually(lambda: rig.plane.handshakes_failed == 3)
        assert not rig.plane.clients
        assert (await (await connect(rig, certificates[0])).ask(GET)).status == 200


async def test_handshakes_that_nobody_goes_on_with_are_bounded(
    certificates: tuple[TlsFiles, TlsFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest give way, so that a client that does its part gets through."""
    monkeypatch.setattr("router.wire.tls.MOST_HANDSHAKES", 5)
    async with serving(certificates[0]) as rig:
        silent = [await rig.client() for _ in range(20)]
        await eventually(lambda: rig.plane.handshakes_failed == 15)
        assert await silent[0].rest() == b""
        assert (await (await connect(rig, certificates[0])).ask(GET)).status == 200
        assert not silent[-1].reader.at_eof()


async def test_a_drain_lets_a_client_in_its_handshake_finish(certificates: tuple[TlsFiles, TlsFiles]) -> None:
    async with serving(certificates[0]) as rig:
        context = ssl.create_default_context(cafile=str(certificates[0].cert))
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(down, up, server_hostname="one.test")
        raw = await rig.client()
        silent = await rig.client()

        async def step(act: Callable[[], object]) -> object:
            while True:
                try:
                    done = act()
                except ssl.SSLWantReadError:
                    await raw.send(up.read())
                    down.write(await raw.reader.read(65536))
                    continue
                await raw.send(up.read())
                return done

        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await raw.send(up.read())
        down.write(await raw.reader.readexactly(5))  # It answered; the client goes on later.
        drain = asyncio.ensure_future(rig.plane.drain(60.0))
        await eventually(lambda: rig.plane.draining)
        down.write(await raw.reader.read(65536))
        await step(tls.do_handshake)
        await step(lambda: tls.write(GET))
        answer = await step(lambda: tls.read(65536))
        assert isinstance(answer, bytes)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer
        # Who says nothing is not waited for.
        assert await silent.rest() == b""
        assert await asyncio.wait_for(drain, 60) == 0
