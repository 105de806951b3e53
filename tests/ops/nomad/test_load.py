"""Parts of a cluster of three servers and two clients go away under load: what the callers of a set meet.

No accepted task is lost, each sync answer says whether its program ran, and no slot is left over.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import docker
import httpx
import pytest

from ops.certificates.authority import Authority
from ops.nomad.cluster import CLIENTS, NAMESPACE, Cluster
from scheduler.launchers.nomad.node_files import RUN
from scheduler.launchers.nomad.records import TERMINAL
from tests.cluster.books import Call, Outcome
from tests.cluster.cluster import attempt_image
from tests.cluster.drill import met
from tests.cluster.load import Plan
from tests.conftest import ROOT, SetProcess
from tests.ops.nomad.test_cluster import registrar, until
from tests.scheduler.launchers.nomad.agents import needs_nomad, start_cluster
from tests.scheduler.launchers.rig import ImageMaker
from tests.sets.executor.link.test_processes import ExecutorProcess

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]
SETTLE_S = 600.0
FEW = 3
"""Tasks that show that the set goes on."""


@pytest.fixture(scope="module")
def cluster(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    needs_nomad()
    with start_cluster(tmp_path_factory.mktemp("cluster"), docker_host) as cluster:
        yield cluster


@pytest.fixture
def served(cluster: Cluster, tmp_path: Path) -> Iterator[SetProcess]:
    """A set that has an executor on each client, and none on its own machine."""
    name = f"tl{uuid.uuid4().hex[:10]}"
    authority = Authority(tmp_path / "authority")
    authority.make()
    authority.issue_to_set(name, tmp_path / name, 10)
    executors = {}
    with ExitStack() as started:
        for client in CLIENTS:
            folder = tmp_path / client
            authority.issue_to_executor(client, folder, 10)
            share = f"{{{name}: {{cores: 1, memory_mib: 1024, max_slots: 4}}}}\n"
            share += f"run_folder: {cluster.node_folder(client) / RUN}"
            executor = ExecutorProcess(folder, client, folder, share).start()
            started.callback(executor.stop)
            executors[client] = {"address": f"127.0.0.1:{executor.port}"}
        own = registrar(cluster, tmp_path, name)
        started.callback(own.stop)
        made = SetProcess(
            tmp_path,
            name,
            f"launcher: nomad\nregistrar: {own.socket}\nnode_folder: {cluster.node_folder('c1')}\n"
            f"link_certificates: {tmp_path / name}\nexecutors: {json.dumps(executors)}\n",
        ).start()
        started.callback(made.stop)
        yield made


class Load:
    """The load of tests/cluster as a process on this machine."""

    def __init__(self, served: SetProcess, image: str, folder: Path) -> None:
        self._file = folder / "told.json"
        plan = Plan(served.url, image, served.name, 1, str(self._file), sync_clients=3, burn_ms=5)
        words = [sys.executable, "-m", "tests.cluster.load", json.dumps(asdict(plan))]
        self._process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE)

    def told(self) -> tuple[list[Call], list[Outcome]]:
        """End it, and return all that the clients were told once each accepted task has ended."""
        self._process.communicate(b"\n\n", SETTLE_S)
        assert self._process.returncode == 0
        found = json.loads(self._file.read_text())
        return [Call(**each) for each in found["calls"]], [Outcome(**each) for each in found["outcomes"]]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    maker = ImageMaker(engine.api)
    yield attempt_image(maker, tmp_path_factory.mktemp("image"))
    maker.clean()


@pytest.fixture
def load(served: SetProcess, image: str, tmp_path: Path) -> Iterator[Load]:
    load = Load(served, image, tmp_path)
    yield load
    load.stop()


def kill_the_leader(cluster: Cluster, serves: Callable[[], None]) -> None:
    leader = cluster.leader()
    other = "s1" if leader != "s1" else "s3"
    cluster.agents[leader].kill()
    serves()
    until(lambda: cluster.leader(other) not in ("", leader), cluster.agents[other].said)
    cluster.start_agent(leader)


def kill_a_client(cluster: Cluster, serves: Callable[[], None]) -> None:
    cluster.agents["c2"].kill()
    serves()
    cluster.start_agent("c2")


def cut_a_client(cluster: Cluster, serves: Callable[[], None]) -> None:
    """Its agent stands still until the servers have missed it."""
    pid = cluster.agents["c2"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: status(cluster, "c2") not in ("", "ready"))
        serves()
    finally:
        os.kill(pid, signal.SIGCONT)


def succeeded(served: SetProcess) -> int:
    with served.client() as client:
        answer = client.get("/v1/tasks", params={"state": "succeeded", "limit": 200})
    assert answer.is_success, answer.text
    return len(answer.json()["tasks"])


def status(cluster: Cluster, client: str) -> str:
    """How a client stands; empty while the first server, which is asked, does not answer or knows no leader."""
    try:
        answer = cluster.ask("GET", "/v1/nodes")
    except httpx.HTTPError:
        return ""
    nodes = answer.json() if answer.is_success else []
    return next((str(node["Status"]) for node in nodes if node["Name"] == client), "")


@pytest.mark.parametrize("fault", [kill_the_leader, kill_a_client, cut_a_client])
def test_callers_are_served_and_nothing_is_lost_or_left_over(
    cluster: Cluster,
    served: SetProcess,
    load: Load,
    engine: docker.DockerClient,
    fault: Callable[[Cluster, Callable[[], None]], None],
) -> None:
    def serves() -> None:
        """Some more accepted tasks end well."""
        enough = succeeded(served) + FEW
        until(lambda: succeeded(served) >= enough, served.log.read_text)

    serves()
    fault(cluster, serves)
    until(lambda: all(status(cluster, client) == "ready" for client in CLIENTS))
    serves()
    calls, outcomes = load.told()
    assert any(call.kind == "sync" and call.status == 200 for call in calls)
    lost = [each for each in outcomes if each.facts.get("state") != "succeeded" or each.flaw or each.changed]
    assert lost == []
    unsaid = [
        call
        for call in calls
        if call.status == 0 or call.broken or call.flaw or (call.status >= 400 and call.executed is None)
    ]
    assert unsaid == [], [(call.kind, met(call)) for call in unsaid]
    served.stop()
    query = f'namespace={NAMESPACE}&filter=JobID matches "^gc-{served.name}-"'
    label = f"org.general-compute.set={served.name}"
    until(
        lambda: (
            all(
                each["ClientStatus"] in TERMINAL
                for each in cluster.ask("GET", f"/v1/allocations?{query}").json()
            )
            and not engine.containers.list(filters={"label": label})
        )
    )
