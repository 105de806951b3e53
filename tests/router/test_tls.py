"""TLS for clients: bodies of any size, broken handshakes, and a certificate that is changed while it serves."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router.tls import Certificate, TlsError, TlsFiles
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
    monkeypatch.setattr("router.tls.HANDSHAKE_S", 0.2)
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
    certificates: tuple[TlsFiles, TlsFiles], tmp_path: Path, caplog: pytest.LogCaptureFixture
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
            certificate.look()
            assert certificate.error is not None
            assert "stays in use" in caplog.text
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
