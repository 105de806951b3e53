"""`gcompute router check` looks at the certificate that the router would serve with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ops.cli import exits
from tests.ops.cli.program import Program
from tests.ops.cli.routers import FILE
from tests.router.wire.certificates import make, make_dated

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def test_check_tells_of_a_certificate_s_end_and_of_one_that_cannot_be_used(
    gcompute: Program, tmp_path: Path
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(FILE.format(port=1).replace(":1", ":2", 1))  # Two sets with one address are warned of.
    good = make_dated(tmp_path / "good", "one.test", "20200101000000Z", "20900101000000Z")
    expired = make_dated(tmp_path / "old", "one.test", "20200101000000Z", "20210101000000Z")
    soon = make(tmp_path / "soon", "one.test")

    def check(cert: Path, key: Path, *more: str) -> tuple[int, str, str]:
        done = gcompute("router", "check", str(file), "--tls-cert", str(cert), "--tls-key", str(key), *more)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    assert check(good.cert, good.key)[::2] == (0, "")
    status, _, said = check(expired.cert, expired.key)
    assert (status, said) == (0, f"warning: {expired.cert}: clients refuse it: it has expired; renew it\n")
    assert "expires in 9.0 days" in check(soon.cert, soon.key)[2]
    assert "expires in" in json.loads(check(soon.cert, soon.key, "--json")[1])["warnings"][0]
    status, _, said = check(good.cert, expired.key)
    assert status == exits.CONFIG
    assert "MISMATCH" in said
    assert "a router would not start with it" in said
    assert json.loads(check(tmp_path / "none", good.key, "--json")[1])["ok"] is False
    done = gcompute("router", "check", str(file), "--tls-cert", str(good.cert))
    assert done.returncode == exits.USAGE
    assert b"together" in done.stderr
