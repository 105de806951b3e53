"""A real registry over TLS: its certificate counts only if the set's `ca_file` says so."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scheduler.errors import ImageUnknown, Unavailable
from scheduler.registry.settings import RegistryConfig
from tests.scheduler.registries import docker_registry
from tests.scheduler.registry.conftest import images_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls-registry")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry of a test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    settings = f"  tls: {{certificate: {folder}/cert.pem, key: {folder}/key.pem}}\n"
    with docker_registry(folder, settings) as host:
        yield host


async def test_a_certificate_of_the_ca_file_is_trusted(host: str, folder: Path) -> None:
    async with images_of(RegistryConfig(name=host, ca_file=str(folder / "cert.pem"))) as images:
        with pytest.raises(ImageUnknown, match="has no such image"):
            await images.resolve(f"{host}/acme/cat:1")


async def test_any_other_is_not(host: str) -> None:
    async with images_of(RegistryConfig(name=host)) as images:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await images.resolve(f"{host}/acme/cat:1")
