"""The runtimes that the private engine offers, and the host ids of our own."""

from __future__ import annotations

import os
from pathlib import Path

import docker
import pytest

from ops.setup import runtimes, userns
from ops.setup.engine import PrivateEngine

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="a private engine needs root, as make test in CI has"
)


def test_ours_is_offered_and_others_that_are_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtimes.offered().keys() == {"gcompute-runc"}
    assert Path(str(runtimes.offered()["gcompute-runc"]["path"])).is_file()
    (tmp_path / "crun").touch(mode=0o755)
    assert runtimes.offered()["crun"] == {"path": f"{tmp_path}/crun"}
    (tmp_path / "runsc").touch(mode=0o755)
    assert runtimes.offered()["runsc"]["path"] == f"{tmp_path}/runsc"
    assert "--host-uds=open" in runtimes.offered()["runsc"]["runtimeArgs"]


def test_ids_are_prepared_only_for_the_runtime_that_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[userns.Range] = []
    monkeypatch.setattr(userns, "prepare", prepared.append)
    for name in ("", "crun", "gcompute-runc"):
        monkeypatch.setenv("GC_RUNTIME", name)
        runtimes.prepare()
    assert prepared == [userns.RUNTIME]


def test_the_runtimes_ids_are_not_those_of_the_engine_with_user_namespaces() -> None:
    engine, own = userns.ENGINE, userns.RUNTIME
    start = userns.free_start("", engine)
    assert userns.free_start("", own) == own.starts[0]
    assert start is not None
    assert start + engine.count <= own.starts[0]
    assert own.starts[0] + own.count < 1 << 32
    assert userns.free_start(f"x:{own.starts[0]}:1\n", own) == own.starts[1]


@needs_root
@pytest.mark.docker
def test_an_engine_that_runs_learns_of_a_runtime_that_was_installed_since(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private = PrivateEngine(tmp_path)
    with monkeypatch.context() as before:
        before.setattr(runtimes, "offered", dict)
        private.start()
    client = docker.DockerClient(base_url=private.layout.host, timeout=60)
    try:
        assert "gcompute-runc" not in client.info()["Runtimes"]
        pid = private.pid
        private.start()
        assert private.pid == pid
        assert "gcompute-runc" in client.info()["Runtimes"]
    finally:
        client.close()
        private.stop()
