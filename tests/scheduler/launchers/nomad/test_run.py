"""Tasks in slots of a real cluster, through a real set, its registrar and a real agent."""

from __future__ import annotations

from pathlib import Path

import docker
import httpx

from sets.cpu import cpu_features
from tests.scheduler.launchers.nomad.agents import MEMORY_MIB
from tests.scheduler.launchers.nomad.conftest import StartClusterSet
from tests.scheduler.launchers.nomad.operating import until
from tests.scheduler.registries import docker_registry


def test_a_task_runs_in_a_slot_of_the_cluster(cluster_set: StartClusterSet) -> None:
    made = cluster_set()
    with made.set.client() as client:
        answer = client.post("/v1/run/cat:1", content=b"through Nomad\n")
        assert (answer.status_code, answer.content) == (200, b"through Nomad\n")
        jobs = httpx.get(f"{made.agent.url}/v1/jobs", params={"meta": "true"}).json()
        (job,) = [job for job in jobs if job["ID"].startswith(f"gc-{made.set.name}-")]
        assert job["Name"] == f"set {made.set.name}: default / cat:1"
        assert job["Meta"]["gc.account"] == "default"
        # The next task finds the slot there.
        assert client.post("/v1/run/cat:1", content=b"again").content == b"again"


def test_a_task_that_asks_for_a_cpu_feature_runs_on_a_node_whose_layout_told_it(
    cluster_set: StartClusterSet,
) -> None:
    feature = min(cpu_features())
    made = cluster_set()
    with made.set.client() as client:
        params: dict[str, str | int] = {"cpu_feature": feature, "queue_timeout_s": 60}
        answer = client.post("/v1/run/cat:1", params=params, content=b"featured", timeout=90)
        assert (answer.status_code, answer.content) == (200, b"featured"), answer.text
    (node,) = made.agent.ask("GET", "/v1/nodes").json()
    meta = made.agent.ask("GET", f"/v1/node/{node['ID']}").json()["Meta"]
    assert {key for key in meta if key.startswith("gc_cpu_")} == {f"gc_cpu_{each}" for each in cpu_features()}


def test_what_a_caller_learns_of_a_task_that_no_node_can_take(cluster_set: StartClusterSet) -> None:
    made = cluster_set("memory_mib: 100000\n")
    with made.set.client() as client:
        answer = client.post("/v1/run/cat:1", params={"memory_mib": MEMORY_MIB + 1, "queue_timeout_s": 12})
        assert answer.status_code == 503
        assert "the cluster cannot place a slot: no node has enough free memory" in answer.json()["detail"]


def test_a_newcomer_does_not_wait_for_anothers_keep_alive(cluster_set: StartClusterSet) -> None:
    made = cluster_set(f"memory_mib: {MEMORY_MIB}\nkeep_idle_s: 3600\n")
    half = MEMORY_MIB * 5 // 8
    with made.set.client() as client:
        for memory_mib, body in ((half, b"keeps an idle slot"), (half + 1, b"needs its memory")):
            params = {"memory_mib": memory_mib, "queue_timeout_s": 240}
            answer = client.post("/v1/run/cat:1", params=params, content=body, timeout=300)
            assert (answer.status_code, answer.content) == (200, body), answer.text


def test_slots_serve_while_the_agent_is_away_and_the_registrar_restarts(cluster_set: StartClusterSet) -> None:
    made = cluster_set()
    with made.set.client() as client:
        assert client.post("/v1/run/cat:1", content=b"before").content == b"before"
        made.registrar.kill()
        made.agent.stop()
        try:
            assert client.post("/v1/run/cat:1", content=b"meanwhile").content == b"meanwhile"
            made.registrar.start()
            assert client.post("/v1/run/cat:1", content=b"still").content == b"still"
        finally:
            made.agent.start()
        assert client.post("/v1/run/cat:1", content=b"after").content == b"after"
        # And new slots start again.
        answer = client.post(
            "/v1/run/ncat:1", params={"queue_timeout_s": 60}, content=b"new", headers={"X-Account": "other"}
        )
        assert answer.content == b"new"


def test_an_image_of_a_registry_needs_no_engine_at_the_set(
    cluster_set: StartClusterSet, engine: docker.DockerClient, tmp_path: Path
) -> None:
    with docker_registry(tmp_path) as host:
        repository = f"{host}/acme/cat"
        engine.images.get("cat:1").tag(repository, "1")
        said = engine.api.push(repository, "1")
        assert "error" not in said, said
        engine.api.remove_image(f"{repository}:1")
        made = cluster_set(
            f"images_ahead: ['{repository}:1']\n"
            f"docker_host: unix://{tmp_path}/none\nregistries: [{{name: own.example, url: 'http://{host}'}}, "
            f"{{name: '{host}', url: 'http://{host}'}}]\n",
            registries=[host],
        )
        # The node pulls it ahead of any task.
        until(lambda: bool(engine.images.list(repository)), "the node has the image")
        until(lambda: "has the image" in made.registrar.log.read_text(), "the registrar has noticed")
        with made.set.client() as client:
            answer = client.post(
                f"/v1/run/{repository}:1", params={"queue_timeout_s": 120}, content=b"from a registry"
            )
            assert (answer.status_code, answer.content) == (200, b"from a registry"), answer.text
            unknown = client.post("/v1/run/acme/dog:1")
            assert (unknown.status_code, unknown.json()["type"].rpartition("/")[2]) == (404, "image-unknown")
            other = client.post("/v1/run/127.0.0.1:1/acme/cat:1")
            assert (other.status_code, other.json()["type"].rpartition("/")[2]) == (
                403,
                "registry-not-allowed",
            )
        made.set.stop()
        for image in engine.images.list(repository):
            for name in image.attrs["RepoDigests"]:
                if name.startswith(f"{repository}@"):
                    engine.api.remove_image(name, force=True)
