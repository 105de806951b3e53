"""The authority of a cluster's links: its key, and the certificates that it signs for sets and executors."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sets.executor.link.names import CA_FILE, IDENTITY_FILE, node_name, set_name

CA_KEY_FILE: Final = "ca-key.pem"
CA_DAYS: Final = 3650
EARLIER: Final = datetime.timedelta(hours=1)
"""How long before its making a certificate is valid: the clocks of machines differ."""


class CertificateError(Exception):
    """A certificate cannot be made; the message says why."""


class Authority:
    """The authority in a folder: its key, and `ca.pem` with its certificate, the newest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key_file = folder / CA_KEY_FILE
        self._ca_file = folder / CA_FILE

    def make(self) -> None:
        """Make a new authority. Raises `CertificateError` where one is there already, and `OSError`."""
        if self._key_file.exists():
            raise CertificateError(
                f"{self._key_file} is there already; to replace the authority: gcompute cert rotate"
            )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write_new([])

    def rotate(self) -> None:
        """Make a new key and certificate; `ca.pem` goes on naming the earlier ones. Raises as `load`."""
        _, certificates = self.load()
        self._write_new(certificates)

    def retire(self) -> int:
        """Have `ca.pem` name the newest certificate alone; returns how many others it named. Raises as `load`."""
        _, certificates = self.load()
        _write(self._ca_file, _pem(certificates[:1]), 0o644)
        return len(certificates) - 1

    def load(self) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
        """The key, and the certificates in `ca.pem`. Raises `CertificateError`."""
        try:
            key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
            certificates = x509.load_pem_x509_certificates(self._ca_file.read_bytes())
        except FileNotFoundError as error:
            raise CertificateError(
                f"{error.filename} is missing; make an authority: gcompute cert ca {self.folder}"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise CertificateError(f"the authority in {self.folder} cannot be read: {error}") from error
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey)
            or key.public_key() != certificates[0].public_key()
        ):
            raise CertificateError(
                f"{self._key_file} is not the key of the first certificate in {self._ca_file}"
            )
        return key, certificates

    def issue_to_set(self, name: str, folder: Path, days: int) -> None:
        """Write a set's certificate, with a new key, into `folder`. Raises `CertificateError`, `OSError`."""
        self._issue(set_name(name), ExtendedKeyUsageOID.CLIENT_AUTH, folder, days)

    def issue_to_executor(self, node: str, folder: Path, days: int) -> None:
        """Write a node's certificate, with a new key, into `folder`. Raises `CertificateError`, `OSError`."""
        self._issue(node_name(node), ExtendedKeyUsageOID.SERVER_AUTH, folder, days)

    def _issue(self, name: str, usage: x509.ObjectIdentifier, folder: Path, days: int) -> None:
        ca_key, certificates = self.load()
        ca = certificates[0]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _begun(name, ca.subject, key, days)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / CA_FILE, _pem(certificates), 0o644)
        # One file, so that a reader always gets a certificate and its own key.
        _write(folder / IDENTITY_FILE, _pem([certificate]) + _key_pem(key), 0o600)

    def _write_new(self, earlier: list[x509.Certificate]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"General Compute {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S}"
        certificate = (
            _begun(name, _subject(name), key, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    key_cert_sign=True,
                    crl_sign=True,
                    digital_signature=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self._key_file, _key_pem(key), 0o600)
        _write(self._ca_file, _pem([certificate, *earlier]), 0o644)


def _begun(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _subject(name: str) -> x509.Name:
    # A common name has 64 characters at most; the whole name is in the extension.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file as a whole; it never has another mode than `mode`."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(
            os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb"
        ) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
