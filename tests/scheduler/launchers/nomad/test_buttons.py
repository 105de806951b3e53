"""Buttons of Nomad's UI, pressed by its API on a real agent: the set goes on, and no slot that nobody ordered stays."""

from __future__ import annotations

import docker
import pytest

from tests.scheduler.launchers.nomad.conftest import StartClusterSet
from tests.scheduler.launchers.nomad.operating import Operator, run, until


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
