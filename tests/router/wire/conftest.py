"""Certificates for the tests of TLS."""

from __future__ import annotations

import pytest

from router.wire.certificate import TlsFiles
from tests.router.wire.certificates import make


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsFiles, TlsFiles]:
    folder = tmp_path_factory.mktemp("tls")
    return make(folder / "one", "one.test"), make(folder / "two", "two.test")
