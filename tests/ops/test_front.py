"""The balancers' own checkers read the examples for them, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FRONT = Path(__file__).resolve().parents[2] / "ops" / "front"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key in one file."""
    folder = tmp_path_factory.mktemp("front")
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "9", "-subj", "/CN=front.test", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    both = folder / "front.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return both


def test_haproxy_takes_its_example(pem: Path, tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text((FRONT / "haproxy.cfg").read_text().replace("/etc/haproxy/tls/front.pem", str(pem)))
    done = subprocess.run(
        [program("haproxy"), "-c", "-f", str(config)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr


def test_nginx_takes_its_example(pem: Path, tmp_path: Path) -> None:
    config = tmp_path / "nginx.conf"
    text = (FRONT / "nginx.conf").read_text()
    for old, new in (
        ("/etc/nginx/tls/front.pem", str(pem)),
        ("/etc/nginx/tls/front.key", str(pem)),
        ("/run/nginx.pid", str(tmp_path / "nginx.pid")),
    ):
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    done = subprocess.run(
        [program("nginx"), "-t", "-p", str(tmp_path), "-c", str(config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr
