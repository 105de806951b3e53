"""A certificate that is changed while it serves, that is bad, or whose dates clients refuse."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.wire.certificate import Certificate, TlsError, TlsFiles
from tests.router.rig import Client
from tests.router.test_server import router, sets, yaml
from tests.router.wire.certificates import GET, connect, make_dated, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


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
    assert certificate.not_after is not None
    assert certificate.not_after <= time.time()
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
    assert certificate.not_after > time.time() + 86400
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
        monkeypatch.setattr("router.wire.certificate.time.time", lambda: now + 90_000)
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
                for _ in range(10):  # Of both workers, most likely; the waits below hold if one is slow.
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
            while (await served(two, "two.test"), await served(one, "one.test")) != (10, 0):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
