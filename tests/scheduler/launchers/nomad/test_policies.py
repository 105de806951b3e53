"""The policies of ops/nomad/policies on a real agent with ACLs: enough for what they are for, and no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ops.nomad.agent import Agent
from ops.nomad.configuration import HERE
from tests.conftest import StartSet
from tests.ports import free_port
from tests.scheduler.launchers.nomad.agents import CPU_SHARES, needs_nomad, start_agent
from tests.scheduler.launchers.nomad.conftest import ClusterSet
from tests.scheduler.launchers.nomad.operating import until

NAMESPACE = "gc-a"


@pytest.fixture(scope="module")
def guarded(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with ACLs, and the namespace that the policies name."""
    needs_nomad()
    folder = tmp_path_factory.mktemp("guarded")
    with start_agent(folder, docker_host, cpu_shares=CPU_SHARES, acl=True) as agent:
        answer = agent.ask("POST", f"/v1/namespace/{NAMESPACE}", json={"Name": NAMESPACE})
        assert answer.is_success, answer.text
        yield agent


def token_of(agent: Agent, policy: str) -> str:
    """The secret of `new_token`."""
    return new_token(agent, policy)["SecretID"]


def new_token(agent: Agent, policy: str) -> dict[str, str]:
    """A token with one of the policies, as its file says to make it."""
    rules = (HERE / f"policies/{policy}.hcl").read_text()
    answer = agent.ask("POST", f"/v1/acl/policy/{policy}", json={"Name": policy, "Rules": rules})
    assert answer.is_success, answer.text
    made: dict[str, str] = agent.ask(
        "POST", "/v1/acl/token", json={"Type": "client", "Policies": [policy]}
    ).json()
    return made


def start(agent: Agent, folder: Path, start_set: StartSet, token: str) -> ClusterSet:
    """A set whose registrar has this token, in a file."""
    file = folder / "token"
    file.write_text(token + "\n")
    registrar: dict[str, object] = {"token_file": str(file), "namespace": NAMESPACE, "relist_s": 2}
    return ClusterSet(agent, folder, f"tp{free_port()}x{os.getpid()}", start_set, "", registrar)


def test_the_registrars_policy_is_enough_and_its_token_is_nowhere(
    guarded: Agent, start_set: StartSet, tmp_path: Path
) -> None:
    token = token_of(guarded, "registrar")
    made = start(guarded, tmp_path, start_set, token)
    try:
        with made.set.client() as client:
            answer = client.post(
                "/v1/run/cat:1", params={"queue_timeout_s": 60}, content=b"allowed", timeout=90
            )
            assert (answer.status_code, answer.content) == (200, b"allowed"), answer.text
        jobs = guarded.ask("GET", f"/v1/jobs?namespace={NAMESPACE}").json()
        (job,) = (each["ID"] for each in jobs if each["ID"].startswith(f"gc-{made.set.name}-"))
        written = guarded.ask("GET", f"/v1/job/{job}?namespace={NAMESPACE}").text
    finally:
        made.close()
    for text in (
        written,
        made.registrar.log.read_text(),
        made.set.log.read_text(),
        made.set.config.read_text(),
    ):
        assert token not in text


def test_an_operator_reads_and_changes_nothing(guarded: Agent) -> None:
    headers = {"X-Nomad-Token": token_of(guarded, "operators")}
    with httpx.Client(base_url=guarded.url, headers=headers, timeout=30, trust_env=False) as client:
        assert client.get("/v1/jobs", params={"namespace": NAMESPACE, "relist_s": 2}).status_code == 200
        assert client.get("/v1/nodes").status_code == 200
        group = {"Name": "g", "Tasks": [{"Name": "t", "Driver": "docker", "Config": {"image": "ncat:1"}}]}
        job = {"ID": "mine", "Name": "mine", "Type": "batch", "Datacenters": ["*"], "TaskGroups": [group]}
        query = {"namespace": NAMESPACE}
        assert client.post("/v1/jobs", params=query, json={"Job": job}).status_code == 403
        assert client.delete("/v1/job/mine", params=query).status_code == 403


def test_a_token_without_rights_is_told_in_words(guarded: Agent, start_set: StartSet, tmp_path: Path) -> None:
    made = start(guarded, tmp_path, start_set, "00000000-0000-0000-0000-000000000000")
    try:
        with made.set.client() as client:
            answer = client.get("/readyz")
            assert answer.status_code == 503
        assert "denied" in made.registrar.log.read_text()
    finally:
        made.close()


def test_a_token_that_is_revoked_stops_new_slots_alone_until_the_file_has_another(
    guarded: Agent, start_set: StartSet, tmp_path: Path
) -> None:
    token = new_token(guarded, "registrar")
    made = start(guarded, tmp_path, start_set, token["SecretID"])
    run = {"queue_timeout_s": 60}
    try:
        with made.set.client() as client:
            assert client.post("/v1/run/cat:1", params=run, content=b"before").content == b"before"
            answer = guarded.ask("DELETE", f"/v1/acl/token/{token['AccessorID']}")
            assert answer.is_success, answer.text
            # The registrar lists everything now and then, and is refused.
            until(lambda: "denied" in client.get("/readyz").text, "the set says that the token is denied")
            assert client.post("/v1/run/cat:1", params=run, content=b"meanwhile").content == b"meanwhile"
            (tmp_path / "token").write_text(token_of(guarded, "registrar"))
            until(lambda: client.get("/readyz").status_code == 200, "the new token counts")
            new = client.post("/v1/run/ncat:1", params=run, content=b"new", timeout=90)
            assert (new.status_code, new.content) == (200, b"new"), new.text
    finally:
        made.close()
