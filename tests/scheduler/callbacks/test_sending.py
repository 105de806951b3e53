"""Messages to real receivers on the loopback, good ones and hostile ones."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from scheduler.callbacks.networks import Networks
from scheduler.callbacks.sending import ANSWER_BYTES, Sender, addresses_of
from scheduler.callbacks.target import parse
from scheduler.callbacks.verdict import Answer
from tests.router.wire.certificates import make
from tests.scheduler.callbacks.receivers import Act, answers, drips, floods, never, receiving, says

LOOPBACK = Networks(("127.0.0.0/8", "::1/128"))
PUBLIC = Networks()
OK = b"HTTP/1.1 200 OK\r\n"


def sender(networks: Networks = LOOPBACK, *addresses: str, try_s: float = 15.0) -> Sender:
    """A sender for which every name has these addresses."""
    resolve = (lambda host, port: addresses) if addresses else None
    return Sender(networks, resolve=resolve, try_s=try_s)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def send(by: Sender, url: str) -> Answer:
    return await by.send(parse(url), {"webhook-id": "a-1"}, b'{"id":"a-1"}')


async def test_a_message_arrives_whole() -> None:
    async with receiving(answers(204)) as receiver:
        assert await send(sender(), receiver.url("/hook?for=a%20b")) == Answer(204)
        (got,) = receiver.received
    assert got.line == "POST /hook?for=a%20b HTTP/1.1"
    assert got.body == b'{"id":"a-1"}'
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == "a-1"


async def test_neither_proxies_nor_logins_of_the_environment_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with receiving(answers(502)) as proxy, receiving(answers(200)) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        assert (await send(sender(), receiver.url())).status == 200
    assert proxy.connections == 0
    assert "authorization" not in receiver.received[0].headers


class TestAddresses:
    async def test_a_name_is_looked_up_and_its_address_connected_to(self) -> None:
        async with receiving(answers(200)) as receiver:
            answer = await send(sender(LOOPBACK, "127.0.0.1"), receiver.url(host="hooks.example"))
        assert answer == Answer(200)
        assert receiver.received[0].headers["host"] == f"hooks.example:{receiver.port}"

    async def test_an_ipv6_address_has_its_brackets_in_the_message_too(self) -> None:
        async with receiving(answers(200)) as receiver:
            answer = await send(sender(LOOPBACK, "127.0.0.1"), receiver.url(host="[::1]"))
        assert answer == Answer(200)
        assert receiver.received[0].headers["host"] == f"[::1]:{receiver.port}"

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433"])
    async def test_the_loopback_is_out_of_reach_however_it_is_written(self, host: str) -> None:
        async with receiving(answers(200)) as receiver:
            answer = await send(sender(PUBLIC), receiver.url(host=host))
            assert "which callbacks may not reach" in (answer.error or "")
        assert (answer.status, receiver.connections) == (None, 0)

    async def test_a_name_whose_address_is_private_is_out_of_reach(self) -> None:
        async with receiving(answers(200)) as receiver:
            for address in ("127.0.0.1", "::ffff:127.0.0.1", "::1", "169.254.169.254", "64:ff9b::7f00:1"):
                answer = await send(sender(PUBLIC, address), receiver.url(host="hooks.example"))
                assert f"the host's address is {address}, which callbacks may not reach" in (
                    answer.error or ""
                )
        assert receiver.connections == 0

    async def test_of_several_addresses_only_those_within_reach_are_connected_to(self) -> None:
        async with receiving(answers(200)) as receiver:
            by = sender(Networks(("127.0.0.1/32",)), "10.0.0.1", "127.0.0.2", "127.0.0.1")
            assert await send(by, receiver.url(host="hooks.example")) == Answer(200)

    async def test_a_second_address_serves_where_the_first_refuses(self) -> None:
        async with receiving(answers(200)) as receiver:
            by = sender(LOOPBACK, "127.0.0.9", "127.0.0.1")
            assert await send(by, receiver.url(host="hooks.example")) == Answer(200)

    async def test_a_name_that_changes_after_the_check_leads_nowhere_else(self) -> None:
        """DNS rebinding: the first lookup gives an address within reach, all later ones another."""
        lookups: list[str] = []

        def rebinding(host: str, port: int) -> Sequence[str]:
            lookups.append(host)
            return ["127.0.0.1"] if len(lookups) == 1 else ["127.0.0.2"]

        async with receiving(answers(200)) as good:
            by = Sender(Networks(("127.0.0.1/32",)), resolve=rebinding)
            url = good.url(host="hooks.example")
            assert await send(by, url) == Answer(200)
            assert len(lookups) == 1, "the name was looked up once for check and connection"
            answer = await send(by, url)
        assert "127.0.0.2, which callbacks may not reach" in (answer.error or "")
        assert good.connections == 1, "no connection was kept from before"

    async def test_a_name_that_is_not_there_is_said_to_be(self) -> None:
        def missing(host: str, port: int) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        answer = await send(Sender(LOOPBACK, resolve=missing), "http://gone.example/")
        assert "its name cannot be resolved" in (answer.error or "")
        assert "Name or service not known" in (answer.error or "")

    async def test_a_lookup_that_hangs_counts_until_it_ends(self) -> None:
        free = threading.Event()

        def hanging(host: str, port: int) -> Sequence[str]:
            free.wait()
            return ["127.0.0.1"]

        sending = asyncio.ensure_future(
            send(Sender(LOOPBACK, resolve=hanging, try_s=0.05), "http://slow.example/")
        )
        done, _ = await asyncio.wait({sending}, timeout=0.2)
        assert not done, "its thread still runs"
        free.set()
        assert "no answer came within" in ((await sending).error or "")

    def test_the_system_resolves_literals_to_themselves(self) -> None:
        assert addresses_of("127.0.0.1", 80) == ["127.0.0.1"]
        assert addresses_of("::1", 80) == ["::1"]


class TestHostileReceivers:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, status: int, stack: AsyncExitStack) -> None:
        inner = await stack.enter_async_context(receiving(answers(200)))
        receiver = await stack.enter_async_context(receiving(answers(status, f"Location: {inner.url()}")))
        assert await send(sender(), receiver.url()) == Answer(status)
        assert inner.connections == 0

    @pytest.mark.parametrize("status", [400, 410, 500])
    async def test_its_status_is_told(self, status: int) -> None:
        async with receiving(answers(status, body=b"what it says of itself is not read out")) as receiver:
            assert await send(sender(), receiver.url()) == Answer(status)

    async def test_it_may_say_when_to_come_again(self) -> None:
        for value, expected in (("120", 120), ("soon", None), ("-1", None), ("9" * 30, None)):
            async with receiving(answers(503, f"Retry-After: {value}")) as receiver:
                assert await send(sender(), receiver.url()) == Answer(503, retry_after_s=expected)

    @pytest.mark.parametrize(
        "act",
        [
            never,
            drips(b"", b"H"),
            drips(OK + b"X-Long: "),
            drips(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ],
        ids=["silent", "garbage", "head", "continue"],
    )
    async def test_one_that_gives_no_answer_is_left(self, act: Act) -> None:
        async with receiving(act) as receiver:
            answer = await send(sender(try_s=0.3), receiver.url())
        assert answer.status is None
        assert answer.error

    @pytest.mark.parametrize(
        "act",
        [
            floods(OK, b"X-Header: " + b"x" * 1000 + b"\r\n"),
            floods(OK + b"X-Long: ", b"x" * 10_000),
            floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        ],
        ids=["many headers", "a long header", "continue"],
    )
    async def test_a_head_without_an_end_is_read_to_a_bound_only(self, act: Act) -> None:
        async with receiving(act) as receiver:
            answer = await send(sender(), receiver.url())
        assert answer.status is None
        assert answer.error

    async def test_a_body_without_an_end_does_not_undo_a_status(self) -> None:
        async with receiving(floods(OK + b"\r\n", b"x" * 10_000)) as receiver:
            assert await send(sender(), receiver.url()) == Answer(200)
        async with receiving(drips(OK + b"Content-Length: 1000000\r\n\r\n")) as receiver:
            assert await send(sender(try_s=1), receiver.url()) == Answer(200)
        async with receiving(says(OK + b"Content-Length: 1000000\r\n\r\nx")) as receiver:
            assert await send(sender(), receiver.url()) == Answer(200)

    async def test_a_body_within_the_bound_is_read(self) -> None:
        read = asyncio.Event()

        async def act(_: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answers(200, body=b"x" * (ANSWER_BYTES // 2))(_, reader, writer)  # type: ignore[arg-type]
            if await reader.read() == b"":
                read.set()

        async with receiving(act) as receiver:
            assert await send(sender(), receiver.url()) == Answer(200)
            await read.wait()

    @pytest.mark.parametrize(
        "data",
        [b"", b"HTTP/1.1 200", b"SSH-2.0-secret-of-another-service\r\n", b"HTTP/1.1 999999 No\r\n\r\n"],
    )
    async def test_one_that_speaks_no_http_is_told_without_its_words(self, data: bytes) -> None:
        async with receiving(says(data)) as receiver:
            answer = await send(sender(), receiver.url())
        assert answer.status is None
        assert "does not speak HTTP/1.1" in (answer.error or "")
        assert "secret" not in (answer.error or "")

    async def test_one_that_is_not_there_is_told(self) -> None:
        async with receiving(answers(200)) as receiver:
            pass
        answer = await send(sender(), receiver.url())
        assert "the receiver cannot be reached" in (answer.error or "")


class TestTls:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("tls")

    async def test_the_certificate_is_checked_by_the_name_and_not_by_the_address(self, folder: Path) -> None:
        made = make(folder, "hooks.example")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.cert, made.key)
        seen: list[str] = []
        context.sni_callback = lambda _, name, __: seen.append(name)
        resolve = lambda host, port: ["127.0.0.1"]  # noqa: E731
        async with receiving(answers(200), tls=context) as receiver:
            trusting = Sender(LOOPBACK, ca_file=str(made.cert), resolve=resolve)
            good = receiver.url(host="hooks.example", scheme="https")
            assert await send(trusting, good) == Answer(200)
            assert seen == ["hooks.example"]
            assert receiver.received[0].headers["host"] == f"hooks.example:{receiver.port}"
            other = await send(trusting, receiver.url(host="other.example", scheme="https"))
            assert "certificate" in (other.error or "").lower()
            strict = await send(Sender(LOOPBACK, resolve=resolve), good)
            assert "certificate" in (strict.error or "").lower()
        assert len(receiver.received) == 1
