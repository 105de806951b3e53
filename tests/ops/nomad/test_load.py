"""Parts of a cluster of three servers and two clients go away under load: what the callers of a set meet.

No accepted task is lost, each sync answer says whether its program ran, and no slot is left over.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import httpx
import pytest

from ops.nomad.cluster import CLIENTS, NAMESPACE, Cluster
from scheduler.launchers.nomad.records import TERMINAL
from tests.cluster.clients import Clients
from tests.cluster.cluster import attempt_image
from tests.cluster.drill import met
from tests.cluster.load import Plan
from tests.conftest import SetProcess
from tests.ops.nomad.rig import serve, until
from tests.scheduler.launchers.nomad.agents import needs_nomad, start_cluster
from tests.scheduler.launchers.rig import ImageMaker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]
FEW = 3
"""Tasks that show that the set goes on."""


@pytest.fixture(scope="module")
def cluster(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    needs_nomad()
    with start_cluster(tmp_path_factory.mktemp("cluster"), docker_host) as cluster:
        yield cluster


@pytest.fixture
def served(cluster: Cluster, tmp_path: Path) -> Iterator[SetProcess]:
    """A set with an executor on each client."""
    with serve(cluster, tmp_path, CLIENTS, cores_each=1) as served:
        yield served


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    maker = ImageMaker(engine.api)
    yield attempt_image(maker, tmp_path_factory.mktemp("image"))
    maker.clean()


@pytest.fixture
def clients(served: SetProcess, image: str, tmp_path: Path) -> Iterator[Clients]:
    plan = Plan(served.url, image, served.name, 1, str(tmp_path / "told.json"), sync_clients=3, burn_ms=5)
    clients = Clients(plan)
    yield clients
    clients.stop()


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
    clients: Clients,
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
    clients.end_load()
    calls, outcomes = clients.told()
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
