"""The dates of a certificate."""

from __future__ import annotations

from cryptography import x509


def validity(pem: bytes) -> tuple[float, float]:
    """Return from when and until when the first certificate in `pem` is valid, in seconds since 1970.

    Raises `ValueError`.
    """
    certificate = x509.load_pem_x509_certificates(pem)[0]
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
