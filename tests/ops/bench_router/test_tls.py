"""The part that measures TLS: both servers start with it and agree on the cipher; the lines compare within rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ops.bench.stack import BenchFailed
from ops.bench_router import tls
from ops.bench_router.proxies import Place
from ops.bench_router.server import Server
from ops.bench_router.tls import TlsShot
from tests.ports import free_port


@pytest.mark.parametrize("make", [tls.router, tls.nginx])
def test_it_serves_tls_and_each_load_measures_it(
    make: Callable[[Place, Path, Path], tls.TlsServer],
    upstream: Server,
    core: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls, "SECONDS", 1.0)
    monkeypatch.setattr(tls, "BODY_BYTES", 3_000_000)
    tmp_path.chmod(0o755)
    try:
        cert, key = tls.certificate(tmp_path)
        load = tls._Load(core, tmp_path)
        place = Place(tmp_path / "it", free_port(), upstream.port, core)
        place.folder.mkdir()
        server = make(place, cert, key)
    except BenchFailed as missing:
        pytest.skip(str(missing))
    with server:
        assert server.cipher() == tls.CIPHER
        for measure in (load.small, load.handshakes, load.down, load.up):
            shot = measure(server)
            assert shot.per_s > 0
            assert shot.cpu_us > 0
    assert not server.answers()


def test_lines_compare_with_nginx_and_with_none() -> None:
    def shots(*cpu_us: float) -> list[TlsShot]:
        return [TlsShot(1e6 / each, each) for each in cpu_us]

    found = {
        figure.what: figure
        for figure in tls.figures(
            {
                # The machine was half as fast in the second round, for all.
                "small GET": {
                    "router": shots(20, 40),
                    "router TLS": shots(30, 60),
                    "nginx TLS": shots(25, 50),
                },
                "handshake": {"router TLS": shots(400)},
            }
        )
    }
    assert {what: figure.text for what, figure in found.items()} == {
        "TLS, small GET: CPU, of nginx's": "1.20 ×",
        "TLS, small GET: per second, of nginx's": "0.83 ×",
        "TLS, small GET: CPU, of the router without": "1.50 ×",
    }
    # No target is set, so none is missed.
    assert {(figure.target, figure.good) for figure in found.values()} == {("none set", True)}


def test_a_body_that_did_not_come_whole_is_no_measurement(
    upstream: Server, core: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        load = tls._Load(core, tmp_path)
    except BenchFailed as missing:
        pytest.skip(str(missing))
    monkeypatch.setattr(tls, "GET", "/nowhere/else")
    monkeypatch.setattr(load, "_run", lambda command: '{"status": 404, "bytes": 12, "s": 0.1}')
    with pytest.raises(BenchFailed, match="a body of 100 MB ended with"):
        load.down(upstream)
