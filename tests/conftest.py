"""Fixtures of all tests: the engine, real images, and a real set as a process of its own."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import docker
import httpx
import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 90.0


def pytest_collection_finish() -> None:
    """Keep the garbage collector from scanning four thousand collected tests again for each of them. Tests that count
    descriptors run a full collection: 0.2 s each before, a few milliseconds now."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a parameter of many bytes after its argument: bytes that are compressed while tests are collected hold the
    time, so two processes would collect tests of different names, and run none."""
    return argname if isinstance(val, bytes) and len(val) > 32 else None


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The engine's address. `make test` always has one; a run by hand may lack it, and then the test is skipped with
    the reason."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        client = docker.DockerClient(base_url=address, timeout=10)
        client.ping()
        client.close()
    except docker.errors.DockerException as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Docker engine at {address}: {error}")
    return address


@pytest.fixture(scope="session")
def engine(docker_host: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=docker_host, timeout=60)
    yield client
    client.close()


class SetProcess:
    """A real set: `gcompute set` as a process, with a folder and a port of its own."""

    def __init__(self, folder: Path, name: str, settings: str = "") -> None:
        self.folder = folder
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "set.yaml"
        self.log = folder / "set.log"
        self.program = ("ops.cli.main", "set")
        """The module, and its first arguments."""
        if "drain_notice_s" not in settings:
            # No router has to learn that it stops.
            settings += "drain_notice_s: 0\n"
        self.config.write_text(f"name: {name}\nstate_dir: {folder / 'state'}\ncores: 2\n{settings}")
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    @property
    def pid(self) -> int:
        """gunicorn's arbiter; the set itself is its only child."""
        assert self._process is not None
        return self._process.pid

    def worker_pid(self) -> int:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def start(self) -> SetProcess:
        self._asked = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    *self.program,
                    str(self.config),
                    "--bind",
                    f"127.0.0.1:{self.port}",
                ],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if httpx.get(f"{self.url}/livez", timeout=2).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the set did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill arbiter and worker at once, as a power cut would, with no chance to clean up."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def ask_to_stop(self) -> None:
        """Begin an orderly stop, while the test goes on; `stop` waits for it."""
        assert self._process is not None
        if not self._asked:
            self._process.terminate()
        self._asked = True

    def stop(self) -> int:
        """Stop in an orderly way; returns the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self.ask_to_stop()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self._process.returncode

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


StartSet = Callable[..., SetProcess]


@pytest.fixture(scope="session")
def start_set(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartSet]:
    """Start sets by `start_set("name", "setting: value\n")`; all are stopped at the end, and leave no container.

    Names are made unique, so that the remains of each can be told apart; `exact`: the name is unique already.
    """
    started: list[SetProcess] = []

    def start(name: str, settings: str = "", *, exact: bool = False) -> SetProcess:
        unique = name if exact else f"{name}{uuid.uuid4().hex[:8]}"
        process = SetProcess(tmp_path_factory.mktemp(name), unique, settings).start()
        started.append(process)
        return process

    yield start
    with ExitStack() as stopping:  # all, whatever one of them does
        for process in started:
            stopping.callback(process.stop)
            process.ask_to_stop()
    client = docker.DockerClient(base_url=docker_host, timeout=60)
    for process in started:
        left = client.containers.list(all=True, filters={"label": f"org.general-compute.set={process.name}"})
        assert not left, f"set {process.name} left {left}"
    client.close()


@pytest.fixture(scope="session")
def shared_set(start_set: StartSet) -> SetProcess:
    """One set for all tests that do it no harm."""
    return start_set("tshared")
