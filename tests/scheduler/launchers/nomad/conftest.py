"""Fixtures of the tests on a cluster: a real agent of this run's own, where `nomad` is on PATH."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from ops.nomad.agent import Agent
from scheduler.launchers.nomad.records import TERMINAL
from tests.conftest import ROOT, SetProcess, StartSet
from tests.ports import free_port

STOP_TIMEOUT_S = 60.0


class RegistrarProcess:
    """`gcompute registrar` as a process of its own."""

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        self.socket = folder / "registrar.sock"
        self.log = folder / "registrar.log"
        self._config = folder / "registrar.yaml"
        self._config.write_text(yaml.safe_dump({"socket": str(self.socket), **settings}))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "ops.cli.main", "registrar", str(self._config)]
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the registrar did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(STOP_TIMEOUT_S)


class ClusterSet:
    """A real set whose slots run on a cluster, and its registrar."""

    def __init__(
        self,
        agent: Agent,
        folder: Path,
        name: str,
        start_set: StartSet,
        settings: str,
        registrar: dict[str, object],
    ) -> None:
        self.agent = agent
        self.registrar = RegistrarProcess(
            folder,
            {"address": agent.url, "node_folder": str(agent.node_folder), "set_name": name, **registrar},
        )
        self.registrar.start()
        self.set: SetProcess = start_set(
            name,
            f"launcher: nomad\nregistrar: {self.registrar.socket}\nnode_folder: {agent.node_folder}\n{settings}",
            exact=True,
        )

    def close(self) -> None:
        """Stop both, the registrar last: a set that has waited for long leaves the rest of its slots to it."""
        self.set.stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._lives() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.registrar.stop()

    def _lives(self) -> bool:
        query = f'namespace=*&filter=JobID matches "^gc-{self.set.name}-"'
        found = self.agent.ask("GET", f"/v1/allocations?{query}").json()
        return any(each["ClientStatus"] not in TERMINAL for each in found)


StartClusterSet = Callable[..., ClusterSet]


@pytest.fixture
def cluster_set(
    agent: Agent, start_set: StartSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartClusterSet]:
    """Start sets on the cluster; each is stopped, with its registrar, when the test ends."""
    with ExitStack() as started:

        def start(settings: str = "", **registrar: object) -> ClusterSet:
            folder = tmp_path_factory.mktemp("cluster")
            made = ClusterSet(agent, folder, f"tc{free_port()}x{os.getpid()}", start_set, settings, registrar)
            started.callback(made.close)
            return made

        yield start
