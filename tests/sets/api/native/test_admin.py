"""/v1/admin/nodes of a real set."""

from __future__ import annotations

import pytest

from scheduler.policy.node_state import features_hash
from sets.cpu import cpu_features
from tests.sets.api.conftest import Api, problem, until


@pytest.mark.docker
def test_the_set_s_own_machine_is_its_only_node(api: Api) -> None:
    assert api.run("say", "x").status_code == 200

    def slots() -> dict[str, int]:
        (node,) = api.http.get("/v1/admin/nodes").json()["nodes"]
        found: dict[str, int] = node["slots"]
        return found

    until(lambda: slots()["idle"], "the slot of the task is idle")
    answer = api.http.get("/v1/admin/nodes").json()
    (node,) = answer["nodes"]
    assert (answer["set"], answer["next"]) == (api.process.name, None)
    assert (node["node"], node["state"], node["cores"], node["tenancy"]) == ("local", "ready", 2.0, None)
    assert node["build"] == api.http.get("/readyz").json()["build"]
    assert node["cpu_features"] == sorted(cpu_features())
    metrics = api.http.get("/metrics").text
    assert 'gc_node_cores{node="local"} 2.0' in metrics
    assert features_hash(cpu_features()) in metrics


@pytest.mark.docker
def test_pages_of_nodes_are_asked_for_by_known_parameters(api: Api) -> None:
    assert api.http.get("/v1/admin/nodes", params={"after": "local"}).json()["nodes"] == []
    found = problem(api.http.get("/v1/admin/nodes", params={"limit": "0"}), 400, "bad-parameter")
    assert "limit: a whole number from 1 to 1000" in found["detail"]
    found = problem(api.http.get("/v1/admin/nodes", params={"sort": "x"}), 400, "bad-parameter")
    assert "sort: there is no such parameter; there are after, limit" in found["detail"]
