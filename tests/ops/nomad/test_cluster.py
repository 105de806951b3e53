"""A cluster of three servers and two clients, set up with the files that operators copy: TLS, ACLs, introductions."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from ops.certificates.authority import Authority
from ops.nomad.cluster import CLIENTS, NAMESPACE, Cluster
from ops.nomad.process import AgentProcess
from ops.setup.errors import OpsError
from tests.conftest import SetProcess
from tests.ops.nomad.rig import PATIENCE_S, registrar, serve, until
from tests.scheduler.launchers.nomad.agents import needs_nomad, start_cluster
from tests.scheduler.launchers.nomad.operating import Held

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
TRIES = 10


@pytest.fixture(scope="module")
def cluster(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    needs_nomad()
    with start_cluster(tmp_path_factory.mktemp("cluster"), docker_host) as cluster:
        yield cluster


@pytest.fixture
def served(cluster: Cluster, tmp_path: Path) -> Iterator[SetProcess]:
    """A set with an executor on the first client."""
    with serve(cluster, tmp_path, ("c1",), cores_each=2) as served:
        yield served


def answer_of(served: SetProcess, body: bytes) -> httpx.Response:
    with served.client() as client:
        return client.post("/v1/run/cat:1", params={"queue_timeout_s": 200}, content=body, timeout=PATIENCE_S)


def test_a_task_runs_through_tls_and_acls(cluster: Cluster, served: SetProcess) -> None:
    answer = answer_of(served, b"behind locks")
    assert (answer.status_code, answer.content) == (200, b"behind locks"), answer.text
    jobs = cluster.ask("GET", f"/v1/jobs?namespace={NAMESPACE}&prefix=gc-{served.name}-").json()
    assert len(jobs) == 1


def test_tasks_run_after_the_leader_was_killed(cluster: Cluster, served: SetProcess) -> None:
    leader = cluster.leader()
    other = "s1" if leader != "s1" else "s3"
    cluster.agents[leader].kill()
    try:
        until(lambda: cluster.leader(other) not in ("", leader), cluster.agents[other].said)
    finally:
        cluster.start_agent(leader)
    answer = answer_of(served, b"who leads now?")
    assert (answer.status_code, answer.content) == (200, b"who leads now?"), answer.text


def held_in_a_slot_that_nomad_says_starts(
    cluster: Cluster, served: SetProcess, engine: docker.DockerClient
) -> Held:
    """A sync task that runs in a slot of the first client, whose agent was stopped before it told the servers so."""
    label = f"org.general-compute.set={served.name}"
    events = {"type": "container", "event": "start", "label": label}
    for more in range(TRIES):
        started = engine.api.events(decode=True, filters=events)
        # Each try needs a slot of its own.
        held = Held(served, memory_mib=64 + more, timeout_s=300)
        next(started)
        os.kill(cluster.agents["c1"].pid, signal.SIGSTOP)
        started.close()
        with served.client() as client:
            until(lambda: client.get("/readyz").json()["slots_running"] == 1, served.log.read_text)
        if "pending" in statuses(cluster, served):
            return held
        os.kill(cluster.agents["c1"].pid, signal.SIGCONT)
        held.end()
    raise AssertionError(f"the agent told the servers sooner, {TRIES} times")


def statuses(cluster: Cluster, served: SetProcess) -> set[str]:
    query = f'namespace={NAMESPACE}&filter=JobID matches "^gc-{served.name}-"'
    return {each["ClientStatus"] for each in cluster.ask("GET", f"/v1/allocations?{query}").json()}


def test_a_task_goes_on_in_a_slot_that_nomad_calls_lost(
    cluster: Cluster, served: SetProcess, engine: docker.DockerClient
) -> None:
    """Its agent is cut from the servers before they knew that the slot runs; its executor is not cut from the set."""
    held = held_in_a_slot_that_nomad_says_starts(cluster, served, engine)
    try:
        until(lambda: "slot serves on" in served.log.read_text(), served.log.read_text)
        assert "lost" in statuses(cluster, served)
        answer = held.end()
        assert (answer.status_code, answer.content) == (200, b"first, last"), answer.text
    finally:
        os.kill(cluster.agents["c1"].pid, signal.SIGCONT)
    # Its agent is back, and ends what the servers gave up; the set goes on in other slots.
    until(lambda: not statuses(cluster, served) & {"lost", "unknown"}, served.log.read_text)
    answer = answer_of(served, b"after")
    assert (answer.status_code, answer.content) == (200, b"after"), answer.text


def test_a_registrar_that_trusts_another_authority_says_so(cluster: Cluster, tmp_path: Path) -> None:
    Authority(tmp_path / "other").make()
    made = registrar(cluster, tmp_path, "tx", ca_file=str(tmp_path / "other/ca.pem"))
    settings = f"launcher: nomad\nregistrar: {made.socket}\nnode_folder: {cluster.node_folder('c1')}\n"
    asking = SetProcess(tmp_path, "tx", settings).start()
    try:
        until(lambda: "issuer certificate" in made.log.read_text(), made.log.read_text)
        with asking.client() as client:
            assert client.get("/readyz").status_code == 503
    finally:
        asking.stop()
        made.stop()


def test_a_client_that_nobody_introduced_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    c1 = cluster.agents["c1"]
    configuration = (c1.folder / "agent.hcl").read_text()
    stranger = AgentProcess(tmp_path / "stranger")
    for known, strange in (
        ('"c1"', '"stranger"'),
        (f'"{cluster.address("c1")}"', f'"{cluster.address("c9")}"'),
        (str(c1.data), str(stranger.data)),
    ):
        configuration = configuration.replace(known, strange)
    stranger.start(configuration)
    try:
        until(lambda: "Permission denied" in stranger.log.read_text(), stranger.said)
        assert {node["Name"] for node in cluster.ask("GET", "/v1/nodes").json()} == set(CLIENTS)
    finally:
        stranger.wipe()


def job(driver: str, config: dict[str, object]) -> str:
    task = {"Name": "t", "Driver": driver, "Config": config}
    group = {"Name": "g", "Tasks": [task]}
    described: dict[str, Any] = {"ID": "mine", "Type": "batch", "Datacenters": ["*"], "TaskGroups": [group]}
    return json.dumps({"Job": {**described, "Name": "mine", "Namespace": NAMESPACE}})


def test_the_registrars_token_starts_no_program_on_a_node(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(job("raw_exec", {"command": "/bin/id"}))
    with pytest.raises(OpsError, match="raw_exec"):
        cluster.command("job", "run", "-json", str(file))
