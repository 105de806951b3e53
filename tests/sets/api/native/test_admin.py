"""/v1/admin/nodes, /v1/admin/pools and /v1/admin/queue of a real set."""

from __future__ import annotations

from typing import Any

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


@pytest.mark.docker
def test_operators_see_the_pools_and_the_queue_of_all_accounts(own_api: Api) -> None:
    crowd, guest = {"X-Account": "crowd"}, {"X-Account": "guest"}
    tasks = [own_api.submit("sleep", "600", headers=crowd) for _ in range(5)]

    def pools(**asked: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = own_api.http.get("/v1/admin/pools", params=asked).json()["pools"]
        return found

    until(lambda: [pool["slots"]["running"] for pool in pools()] == [2], "both cores are in use")
    tasks.append(own_api.submit("say", "x", headers=guest))
    until(lambda: len(pools()) == 2, "the guest's pool is there")
    first, second = pools()
    assert (first["account"], first["image"], first["queued"]) == ("crowd", own_api.image, 3)
    assert (first["cpu"], first["memory_mib"], first["isolation"]) == (1.0, 512, "shared")
    assert (first["slots_wanted"], first["slots_max"]) == (2, 2)
    assert first["waiting_for"] == "all slots of its kind are busy (2)"
    assert [pool["pool"] for pool in pools(account="guest")] == [second["pool"]]
    assert (second["account"], second["queued"], second["failures"]) == ("guest", 1, 0)

    queue = own_api.http.get("/v1/admin/queue").json()
    assert (queue["set"], queue["draining"], queue["queued"]) == (own_api.process.name, False, 4)
    assert (queue["cores"], queue["cores_held"], queue["next"]) == (2.0, 2.0, None)
    many, one = queue["accounts"]
    assert (many["account"], many["queued"], many["running"], many["cores_held"]) == ("crowd", 3, 2, 2.0)
    # Four tasks are no flood of the queue, but both cores are its own while another account waits.
    assert (many["fair_part"], many["floods"]) == (0.5, ["cores"])
    assert (one["account"], one["queued"], one["floods"]) == ("guest", 1, [])
    page = own_api.http.get("/v1/admin/queue", params={"limit": "1"}).json()
    rest = own_api.http.get("/v1/admin/queue", params={"after": page["next"]}).json()
    assert [each["account"] for each in page["accounts"] + rest["accounts"]] == ["crowd", "guest"]
    problem(own_api.http.get("/v1/admin/queue", params={"after": "x"}), 400, "bad-parameter")
    problem(own_api.http.get("/v1/admin/pools", headers={"Via": "1.1 proxy"}), 403, "forbidden")
    for task in tasks:
        of = guest if task is tasks[-1] else crowd
        assert own_api.http.post(f"/v1/tasks/{task['id']}/cancel", headers=of).status_code == 200
