"""TLS for clients: bodies of any size, broken handshakes, and a certificate that is changed while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.wire.tls import Certificate, TlsError, TlsFiles
from tests.router.rig import OK, Client, Conversation, FakeSet, Play, Rig, answering, eventually, running
from tests.router.test_server import router, sets, yaml

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


def make(folder: Path, name: str) -> TlsFiles:
    """A certificate for `name`, signed by itself."""
    folder.mkdir(exist_ok=True)
    files = TlsFiles(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", files.key, "-out", files.cert],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return files


def make_dated(folder: Path, name: str, begins: str, ends: str) -> TlsFiles:
    """As `make`, with these dates (YYYYMMDDHHMMSSZ): only `openssl ca` takes them."""
    files = make(folder, name)
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca = one\n[one]\ndatabase = db\nnew_certs_dir = .\nrand_serial = yes\ndefault_md = sha256\n"
        "policy = any\n[any]\ncommonName = supplied\n"
    )
    (folder / "db").touch()
    for command in (
        ["req", "-new", "-key", "key.pem", "-subj", f"/CN={name}", "-out", "request.pem"],
        ["ca", "-config", "ca.cnf", "-batch", "-selfsign", "-keyfile", "key.pem", "-in", "request.pem",
         "-startdate", begins, "-enddate", ends, "-notext", "-out", "cert.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True, timeout=30, cwd=folder)
    return files


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsFiles, TlsFiles]:
    folder = tmp_path_factory.mktemp("tls")
    return make(folder / "one", "one.test"), make(folder / "two", "two.test")


async def connect(
    rig: Rig, trusted: TlsFiles, name: str = "one.test", tls: ssl.TLSVersion | None = None
) -> Client:
    context = ssl.create_default_context(cafile=str(trusted.cert))
    context.set_alpn_protocols(["h2", "http/1.1"])
    if tls is not None:
        context.maximum_version = tls
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, ssl=context, server_hostname=name)
    rig.stack.callback(writer.close)
    return Client(reader, writer)


@asynccontextmanager
async def serving(files: TlsFiles, **plays: object) -> AsyncIterator[Rig]:
    async with running(plays or {"a": answering()}) as rig:  # type: ignore[arg-type]
        rig.plane.certificate = Certificate(files)
        yield rig


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
        drain = asyncio.ensure_future(rig.plane.drain(20.0))
        await asyncio.sleep(0.1)
        assert rig.plane.draining
        down.write(await raw.reader.read(65536))
        await step(tls.do_handshake)
        await step(lambda: tls.write(GET))
        answer = await step(lambda: tls.read(65536))
        assert isinstance(answer, bytes)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer
        # Who says nothing is not waited for.
        assert await silent.rest() == b""
        assert await asyncio.wait_for(drain, 10) == 0


async def test_a_changed_certificate_serves_new_connections(
    certificates: tuple[TlsFiles, TlsFiles], tmp_path: Path
) -> None:
    one, two = certificates
    # As Kubernetes does: a link that swings to another folder.
    link = tmp_path / "now"
    link.symlink_to(one.cert.parent)
    async with serving(TlsFiles(link / "cert.pem", link / "key.pem")) as rig:
        certificate = rig.plane.certificate
        assert certificate is not None
        old = await connect(rig, one)
        assert (await old.ask(GET)).status == 200
        other = tmp_path / "other"
        other.symlink_to(two.cert.parent)
        other.rename(link)
        certificate.look()
        assert (certificate.reloads, certificate.error) == (1, None)
        assert (await old.ask(GET)).status == 200
        assert (await (await connect(rig, two, "two.test")).ask(GET)).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(rig, one)


async def test_a_bad_certificate_leaves_the_good_one_loudly(
    certificates: tuple[TlsFiles, TlsFiles], tmp_path: Path
) -> None:
    one, two = certificates
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    shutil.copy(one.cert, files.cert)
    shutil.copy(one.key, files.key)
    async with serving(files) as rig:
        certificate = rig.plane.certificate
        assert certificate is not None
        for spoil in (b"", b"no certificate"):
            files.cert.write_bytes(spoil)
            with capture_logs() as lines:
                certificate.look()
            assert certificate.error is not None
            assert [(line["event"], line["reason"]) for line in lines] == [
                ("certificate is not taken: the one before stays in use", certificate.error)
            ]
            assert (await (await connect(rig, one)).ask(GET)).status == 200
        files.cert.unlink()
        certificate.look()
        assert certificate.error is not None
        failures = certificate.failures
        certificate.look()  # Told once.
        assert certificate.failures == failures
        # The certificate first, its key later: in use once both are there.
        shutil.copy(two.cert, files.cert)
        certificate.look()
        assert "cannot be used" in str(certificate.error)
        shutil.copy(two.key, files.key)
        certificate.look()
        assert str(certificate.error) == "None"
        assert (await (await connect(rig, two, "two.test")).ask(GET)).status == 200


def test_a_certificate_that_cannot_be_used_is_told_at_the_start(
    certificates: tuple[TlsFiles, TlsFiles], tmp_path: Path
) -> None:
    one, two = certificates
    with pytest.raises(TlsError, match="No such file"):
        TlsFiles(tmp_path / "none", one.key).context()
    with pytest.raises(TlsError, match="MISMATCH"):
        TlsFiles(one.cert, two.key).context()


def test_a_certificate_that_clients_refuse_is_told(tmp_path: Path) -> None:
    expired = make_dated(tmp_path / "old", "one.test", "20200101000000Z", "20210101000000Z")
    early = make_dated(tmp_path / "new", "one.test", "20900101000000Z", "20910101000000Z")
    assert "refuse it: it has expired; renew it" in str(expired.doubt(time.time()))
    assert "it is not valid yet; look at its dates and the clock" in str(early.doubt(time.time()))
    # It is what operators gave, so it serves; loudly.
    with capture_logs() as lines:
        certificate = Certificate(expired)
    assert certificate.doubt is not None
    assert [(line["event"], line["warning"]) for line in lines] == [
        ("warning about the certificate", certificate.doubt)
    ]
    # Put right.
    good = make_dated(tmp_path / "good", "one.test", "20200101000000Z", "20900101000000Z")
    for name in ("cert.pem", "key.pem"):
        shutil.copy(tmp_path / "good" / name, tmp_path / "old" / name)
    with capture_logs() as lines:
        certificate.look()
    assert not certificate.doubt
    assert not certificate.error
    assert [line["log_level"] for line in lines] == ["info"]
    assert good.doubt(time.time()) is None


def test_a_certificate_that_ends_soon_is_told_each_day(
    certificates: tuple[TlsFiles, TlsFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    assert certificates[0].doubt(now - 6 * 86400) is None  # Nine days, and these six.
    assert "expires in 9.0 days, on 20" in str(certificates[0].doubt(now))
    assert "expires in 0.0 days" in str(certificates[0].doubt(now + 20 * 86400))
    with capture_logs() as lines:
        certificate = Certificate(certificates[0])
        for _ in range(5):
            certificate.look()
        assert [line["warning"].count("renew it") for line in lines] == [1]
        monkeypatch.setattr("router.wire.tls.time.time", lambda: now + 90_000)
        certificate.look()
        certificate.look()
    assert [line["warning"].count("renew it") for line in lines] == [1, 1]


async def test_a_router_of_two_workers_serves_tls_and_a_new_certificate(
    certificates: tuple[TlsFiles, TlsFiles], tmp_path: Path
) -> None:
    one, two = certificates
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    shutil.copy(one.cert, files.cert)
    shutil.copy(one.key, files.key)
    config = tmp_path / "r.yaml"
    more = {"TLS_CERT": str(files.cert), "TLS_KEY": str(files.key)}
    async with sets("a") as fakes:
        config.write_text(yaml({"a": fakes["a"].port}, 1, {"a": 100}))
        async with router(config, tmp_path / "state", workers=2, more=more) as process:

            async def served(trusted: TlsFiles, name: str) -> int:
                context = ssl.create_default_context(cafile=str(trusted.cert))
                count = 0
                for _ in range(10):  # Of both workers, most likely.
                    try:
                        reader, writer = await asyncio.open_connection(
                            "127.0.0.1", process.port, ssl=context, server_hostname=name
                        )
                    except ssl.SSLCertVerificationError:
                        continue
                    count += (await Client(reader, writer).ask(GET)).status == 200
                    writer.close()
                return count

            assert await served(one, "one.test") == 10
            assert "gc_router_tls_ok 1.0" in (await process.admin("/metrics")).body.decode()
            shutil.copy(two.cert, files.cert)
            shutil.copy(two.key, files.key)
            for _ in range(100):
                if await served(two, "two.test") == 10:
                    break
                await asyncio.sleep(0.1)
            assert await served(one, "one.test") == 0
