"""Who may call an executor, and whom a set calls: certificates, names, versions, and what comes before a session."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from sets.executor.link import frames, messages, server
from sets.executor.link.frames import FrameBuffer
from sets.executor.link.names import Certificates, node_name
from tests.scheduler.conftest import until
from tests.sets.executor.link.rig import Owner, Rig

HELLO = messages.Hello(1, 1, "a", "b1", 60.0)


class Caller:
    """Somebody who connects to the executor and says what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def says(self, kind: int, message: messages.Hello | bytes) -> None:
        body = message if isinstance(message, bytes) else messages.encode(message)
        self.writer.write(frames.frame(kind, body))

    async def hears(self) -> list[tuple[int, bytes]]:
        """All frames until the executor closes, or welcomes."""
        buffer = FrameBuffer()
        heard: list[tuple[int, bytes]] = []
        while data := await self._reader.read(1 << 14):
            space = buffer.space()
            space[: len(data)] = data
            heard += [(kind, bytes(body)) for kind, _, _, body in buffer.filled(len(data))]
            if heard and heard[0][0] == frames.WELCOME:
                break
        return heard

    async def fault(self) -> str:
        """Why the executor refused."""
        heard = await self.hears()
        assert [kind for kind, _ in heard] == [frames.FAULT], heard
        return messages.decode(memoryview(heard[0][1]), messages.Reason).reason


Call = Callable[..., asyncio.Future[Caller]]


@pytest.fixture
async def call(rig: Rig) -> AsyncIterator[Call]:
    callers: list[Caller] = []

    async def connect(certificate: str | None = "a") -> Caller:
        if certificate is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(rig.certificates / "a" / "ca.pem")
        else:
            context = Certificates(rig.certificates / certificate).for_set()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", rig.port, ssl=context, server_hostname=node_name("n1")
        )
        callers.append(Caller(reader, writer))
        return callers[-1]

    yield lambda certificate="a": asyncio.ensure_future(connect(certificate))
    for caller in callers:
        caller.writer.transport.abort()


@pytest.mark.parametrize("certificate", [None, "strange-a", "n1"])
async def test_a_caller_without_a_set_s_certificate_gets_no_word(call: Call, certificate: str | None) -> None:
    """With TLS 1.3 the caller learns of it when it reads."""
    try:
        caller = await call(certificate)
        caller.says(frames.HELLO, HELLO)
        assert await caller.hears() == []
    except (ssl.SSLError, ConnectionError):
        pass


async def test_a_caller_without_a_certificate_is_logged_in_plain_words(call: Call) -> None:
    with capture_logs() as lines:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            caller = await call(None)
            await caller.hears()
        await until(lambda: [line for line in lines if line["event"] == "caller refused"])
    (reason,) = (line["reason"] for line in lines if line["event"] == "caller refused")
    assert reason == "TLS fails: peer did not return a certificate"


async def test_a_set_cannot_pass_for_another(call: Call) -> None:
    caller = await call("b")
    caller.says(frames.HELLO, HELLO)
    assert await caller.fault() == "the certificate is not that of set a"


async def test_a_set_that_is_not_served_is_told(call: Call, rig: Rig) -> None:
    rig.authority("c")
    caller = await call("c")
    caller.says(frames.HELLO, messages.Hello(1, 1, "c", "b1", 60.0))
    assert "does not serve set c" in await caller.fault()


@pytest.mark.parametrize(("oldest", "newest"), [(2, 3), (7, 7)])
async def test_ends_without_a_common_version_say_both(call: Call, oldest: int, newest: int) -> None:
    caller = await call()
    caller.says(frames.HELLO, messages.Hello(oldest, newest, "a", "b9", 60.0))
    assert f"versions {oldest} to {newest}" in await caller.fault()


async def test_a_newer_set_and_this_executor_take_the_older_s_version(call: Call) -> None:
    caller = await call()
    newer = {"oldest": 1, "newest": 9, "set_name": "a", "build": "b9", "lease_s": 60.0, "not_known_here": [1]}
    caller.says(frames.HELLO, msgspec.msgpack.encode(newer))
    heard = await caller.hears()
    welcome = messages.decode(memoryview(heard[0][1]), messages.Welcome)
    assert (welcome.version, welcome.node) == (1, "n1")


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (frames.TASK, b"", "begins with one HELLO"),
        (frames.HELLO, b"\xc1", "Hello that cannot be read"),
        (frames.HELLO, messages.encode(messages.Reason("x")), "Hello that cannot be read"),
        (frames.HELLO, messages.encode(messages.Hello(1, 1, "a", "b", 1e9)), "lease_s"),
        (frames.HELLO, messages.encode(messages.Hello(0, 1, "a", "b", 1.0)), "oldest"),
        (frames.HELLO, messages.encode(messages.Hello(1, 1, "a" * 1000, "b", 1.0)), "set_name"),
    ],
)
async def test_what_is_no_hello_is_refused_with_the_reason(
    call: Call, kind: int, body: bytes, said: str
) -> None:
    caller = await call()
    caller.says(kind, body)
    assert said in await caller.fault()


async def test_a_frame_that_is_too_long_is_refused_before_it_comes(call: Call) -> None:
    caller = await call()
    caller.writer.write(frames.HEAD.pack(frames.BODY_BYTES + 1, frames.HELLO, 0, 0, 0))
    assert "the most is" in await caller.fault()


async def test_half_a_hello_is_not_waited_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELLO_S", 2.0)
    caller = await call()
    whole = frames.frame(frames.HELLO, messages.encode(HELLO))
    caller.writer.write(whole[:-1])
    assert "no HELLO within" in await caller.fault()


async def test_silent_callers_keep_no_set_out_for_long(
    rig: Rig, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.linked()
    monkeypatch.setattr(server, "CALLERS_MOST", 2)
    silent = [await call(), await call()]
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await call()
    for caller in silent:
        caller.writer.transport.abort()

    async def welcomed() -> bool:
        try:
            caller = await call()
        except (ConnectionError, ssl.SSLError):
            return False
        caller.says(frames.HELLO, HELLO)
        return (await caller.hears())[0][0] == frames.WELCOME

    while not await welcomed():
        pass


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        ("n2", "not valid for 'n1.node.general-compute'"),
        ("strange-n1", "certificate verify failed"),
        ("a", "purpose"),
    ],
)
async def test_a_set_trusts_no_executor_but_its_node_s(rig: Rig, certificate: str, said: str) -> None:
    impostor = rig.new_server(certificate=certificate)
    port = await impostor.open("127.0.0.1", 0)
    owner = Owner()
    remote = rig.new_remote(port)
    with capture_logs() as lines:
        await remote.open(owner)
        await until(lambda: [line for line in lines if said in str(line.get("reason"))])
    assert owner.heard == []
    await remote.close()
    await impostor.close("the test is over")


async def test_an_executor_of_another_name_is_refused(rig: Rig) -> None:
    """Its certificate is right, but its configuration names another node."""
    facts = msgspec.structs.replace(rig.facts, id="n9")
    liar = rig.new_server(shares={"a": facts})
    port = await liar.open("127.0.0.1", 0)
    owner = Owner()
    remote = rig.new_remote(port)
    with capture_logs() as lines:
        await remote.open(owner)
        await until(lambda: [line for line in lines if "its node is n9" in str(line.get("reason"))])
    assert owner.heard == []
    await remote.close()
    await liar.close("the test is over")


async def test_a_renewed_certificate_is_used_without_a_restart(rig: Rig, tmp_path: Path) -> None:
    await rig.linked()
    folder = rig.own_certificates(tmp_path, "a")
    remote = rig.new_remote(rig.port, certificate=str(folder))
    (folder / "identity.pem").rename(folder / "away")
    owner = Owner()
    with capture_logs() as lines:
        await remote.open(owner)
        await until(
            lambda: [line for line in lines if "identity.pem cannot be used" in str(line.get("reason"))]
        )
    (folder / "away").rename(folder / "identity.pem")
    await until(lambda: owner.nodes)
    await remote.close()
