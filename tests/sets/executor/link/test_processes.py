"""The whole way with real processes: a set, an executor of its own process, and real slots that it serves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from ops.certificates.authority import Authority
from tests.conftest import ROOT, START_TIMEOUT_S, STOP_TIMEOUT_S, SetProcess, StartSet
from tests.ports import free_port

pytestmark = pytest.mark.docker
PATIENCE_S = 60.0


class ExecutorProcess:
    """A real executor: `gcompute executor` as a process."""

    def __init__(self, folder: Path, node: str, certificates: Path, sets: str) -> None:
        self.node = node
        self.state_dir = folder / "state"
        self.port = free_port()
        self.log = folder / "executor.log"
        self._config = folder / "executor.yaml"
        self._config.write_text(
            f"node: {node}\nstate_dir: {self.state_dir}\ncertificates: {certificates}\n"
            f"bind: 127.0.0.1:{self.port}\nsets: {sets}\n"
        )

    def start(self) -> ExecutorProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.cli.main", "executor", str(self._config)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(STOP_TIMEOUT_S)


class Cluster:
    """One set and its executor n1, both on this machine, with the set's own engine."""

    def __init__(self, start_set: StartSet, folder: Path) -> None:
        authority = Authority(folder / "authority")
        authority.make()
        authority.issue_to_executor("n1", folder / "n1", 10)
        self.folder = folder
        self.authority = authority
        self.start_set = start_set

    def start(self, lease_s: float = 60.0) -> None:
        name = f"link{uuid.uuid4().hex[:8]}"
        self.authority.issue_to_set(name, self.folder / name, 10)
        self.executor = ExecutorProcess(
            self.folder, "n1", self.folder / "n1", f"{{{name}: {{cores: 2, memory_mib: 2048, max_slots: 4}}}}"
        ).start()
        self.set = SetProcess(
            self.folder,
            name,
            f"link_certificates: {self.folder / name}\nlink_lease_s: {lease_s}\n"
            f"executors: {{n1: {{address: '127.0.0.1:{self.executor.port}', "
            f"state_dir: {self.executor.state_dir}}}}}\n",
        ).start()
        self.http = httpx.Client(base_url=self.set.url, timeout=PATIENCE_S)
        self.until_ready()

    def until_ready(self) -> None:
        self.until(lambda: self.http.get("/readyz").status_code == 200)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, (
                self.set.log.read_text()[-4000:] + self.executor.log.read_text()
            )
            time.sleep(0.02)

    def stop(self) -> None:
        self.http.close()
        self.set.stop()
        self.executor.stop()


@pytest.fixture
def cluster(docker_host: str, start_set: StartSet, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(start_set, tmp_path)
    cluster.start()
    yield cluster
    cluster.stop()


def test_sync_and_async_tasks_run_in_another_process(cluster: Cluster) -> None:
    answer = cluster.http.post("/v1/run/cat:1", content=b"hello")
    assert (answer.status_code, answer.content) == (200, b"hello"), answer.text
    large = os.urandom(1 << 20) * 5
    answer = cluster.http.post("/v1/run/cat:1", content=large)
    assert (answer.status_code, answer.content == large) == (200, True)
    accepted = cluster.http.post("/v1/run/cat:1", content=large, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202, accepted.text
    task = cluster.http.get(f"/v1/tasks/{accepted.json()['id']}", params={"wait": 30}).json()
    assert task["state"] == "succeeded", task
    assert task["cpu_us"] > 0
    assert cluster.http.get(f"/v1/tasks/{task['id']}/stdout").content == large
    assert list((cluster.executor.state_dir / cluster.set.name).iterdir()), "its slots are the executor's"


def test_the_image_s_home_reaches_its_slots_across_the_link(cluster: Cluster) -> None:
    answer = cluster.http.post("/v1/run/cat:1", params={"arg": "/root/.profile"})
    assert answer.status_code == 200, answer.text
    assert b"PATH" in answer.content or b"bash" in answer.content, "Debian's own file"


def test_a_task_is_followed_across_the_link(cluster: Cluster) -> None:
    calling = HTTPConnection("127.0.0.1", cluster.set.port, timeout=PATIENCE_S)
    calling.putrequest("POST", "/v1/run/cat:1?stream=1")
    calling.putheader("Transfer-Encoding", "chunked")
    calling.endheaders()
    # The connection forgets its socket where the answer says that it will close.
    upload = calling.sock
    upload.sendall(b"6\r\nfirst\n\r\n")
    answer = calling.getresponse()
    path = f"/v1/tasks/{answer.headers['X-Task-Id']}/stdout"
    with cluster.http.stream("GET", path, params={"follow": "1"}) as followed:
        pieces = followed.iter_raw()
        assert next(pieces) == b"first\n"
        upload.sendall(b"5\r\nlast\n\r\n0\r\n\r\n")
        assert answer.read() == b"first\nlast\n"
        assert b"".join(pieces) == b"last\n"
    calling.close()


@pytest.fixture
def hasty(docker_host: str, start_set: StartSet, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose set does not wait long for a lost node."""
    cluster = Cluster(start_set, tmp_path)
    cluster.start(lease_s=5.0)
    yield cluster
    cluster.stop()


def test_an_executor_that_is_killed_loses_no_accepted_task(hasty: Cluster) -> None:
    accepted: list[str] = []
    for number in range(40):
        answer = hasty.http.post("/v1/run/cat:1", content=b"%d" % number, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202, answer.text
        accepted.append(answer.json()["id"])
        if number == 20:
            hasty.executor.stop(signal.SIGKILL)
    hasty.until(lambda: hasty.http.get("/readyz").status_code == 503)
    hasty.executor.start()
    hasty.until_ready()
    for number, task_id in enumerate(accepted):
        task = hasty.http.get(f"/v1/tasks/{task_id}", params={"wait": 30}).json()
        assert task["state"] == "succeeded", task
        assert hasty.http.get(f"/v1/tasks/{task_id}/stdout").content == b"%d" % number


def test_an_executor_that_stops_lets_its_tasks_end(cluster: Cluster) -> None:
    drains = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"before "
        drains.wait(PATIENCE_S)
        yield b"after"

    with ThreadPoolExecutor() as pool:
        running = pool.submit(cluster.http.post, "/v1/run/cat:1", content=body())
        cluster.until(lambda: re.search(r"slots.*running.* 1\b", cluster.http.get("/metrics").text))
        os.kill(cluster.executor.process.pid, signal.SIGTERM)
        cluster.until(lambda: cluster.http.get("/readyz").status_code == 503)
        assert cluster.executor.process.poll() is None
        drains.set()
        answer = running.result()
    assert (answer.status_code, answer.content) == (200, b"before after"), answer.text
    assert cluster.executor.process.wait(STOP_TIMEOUT_S) == 0
    cluster.executor.start()
    cluster.until_ready()
    assert cluster.http.post("/v1/run/cat:1", content=b"again").content == b"again"
