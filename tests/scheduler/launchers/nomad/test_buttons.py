"""Buttons of Nomad's UI, pressed by its API on a real agent: the set goes on, and no slot that nobody ordered stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import docker
import httpx
import pytest

from tests.scheduler.launchers.nomad.conftest import ClusterSet, StartClusterSet

PATIENCE_S = 120.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Operator:
    """Looks at the cluster of one set, and presses buttons."""

    def __init__(self, made: ClusterSet, engine: docker.DockerClient) -> None:
        self.set = made.set
        self._engine = engine
        self._nomad = httpx.Client(base_url=made.agent.url, timeout=30, trust_env=False)

    def allocations(self) -> list[dict[str, Any]]:
        query = {"filter": f'JobID matches "^gc-{self.set.name}-"'}
        found: list[dict[str, Any]] = self._nomad.get("/v1/allocations", params=query).json()
        return found

    def press(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self._nomad.request(method, path, **options)
        assert answer.is_success, answer.text
        return answer

    def containers(self) -> int:
        label = f"org.general-compute.set={self.set.name}"
        return len(self._engine.containers.list(filters={"label": label}))


def run(operator: Operator, body: bytes) -> None:
    with operator.set.client() as client:
        answer = client.post("/v1/run/cat:1", params={"queue_timeout_s": 60}, content=body, timeout=90)
        assert (answer.status_code, answer.content) == (200, body), answer.text


@pytest.mark.parametrize(
    "button", ["stop the allocation", "restart the allocation", "stop the job", "purge the job"]
)
def test_a_button_ends_a_slot_and_leaves_none_that_nobody_ordered(
    cluster_set: StartClusterSet, engine: docker.DockerClient, button: str
) -> None:
    operator = Operator(cluster_set(), engine)
    run(operator, b"before")
    # Nomad learns that a slot runs later than the set does.
    until(
        lambda: [each["ClientStatus"] for each in operator.allocations()] == ["running"], "Nomad says it runs"
    )
    (slot,) = operator.allocations()
    match button:
        case "stop the allocation":
            operator.press("POST", f"/v1/allocation/{slot['ID']}/stop")
        case "restart the allocation":
            operator.press("POST", f"/v1/client/allocation/{slot['ID']}/restart", json={})
        case "stop the job":
            operator.press("DELETE", f"/v1/job/{slot['JobID']}")
        case "purge the job":
            operator.press("DELETE", f"/v1/job/{slot['JobID']}", params={"purge": "true"})
    with operator.set.client() as client:
        until(lambda: client.get("/readyz").json()["slots_idle"] == 0, "the slot's end is noticed")
    run(operator, b"after")

    def only_the_new_one() -> bool:
        live = [each for each in operator.allocations() if each["ClientStatus"] in ("running", "pending")]
        return [each["JobID"] == slot["JobID"] for each in live] == [False] and operator.containers() == 1

    until(only_the_new_one, "the set's new slot is the only one")
