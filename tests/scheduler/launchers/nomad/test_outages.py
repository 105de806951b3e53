"""Parts that are killed under load, on a real agent: no acknowledged task is lost, and no slot is left over."""

from __future__ import annotations

import docker
import httpx
import pytest

from tests.scheduler.launchers.nomad.conftest import StartClusterSet
from tests.scheduler.launchers.nomad.operating import Operator, until

TASKS = 8
IMAGE = "/v1/run/general-compute/base:bookworm"
AS_ASYNC = {"Prefer": "respond-async"}


def submit(client: httpx.Client, number: int) -> str:
    """An async task that takes a second, so that some run and some wait when something is killed."""
    argv = ("/bin/sh", "-c", f"sleep 1; echo {number}")
    params: list[tuple[str, str | int | float | bool | None]] = [("arg", each) for each in argv]
    answer = client.post(IMAGE, params=params, headers=AS_ASYNC)
    assert answer.status_code == 202, answer.text
    found: str = answer.json()["id"]
    return found


@pytest.mark.parametrize("killed", ["the registrar", "the set", "both"])
def test_no_acknowledged_task_is_lost_and_no_slot_is_left(
    cluster_set: StartClusterSet, engine: docker.DockerClient, killed: str
) -> None:
    made = cluster_set()
    operator = Operator(made, engine)
    with made.set.client() as client:
        tasks = [submit(client, number) for number in range(TASKS)]
        until(lambda: client.get("/readyz").json()["slots_running"] > 0, "some run")
    if killed != "the set":
        made.registrar.kill()
    if killed != "the registrar":
        made.set.kill()
    if killed != "the set":
        made.registrar.start()
    if killed != "the registrar":
        made.set.start()
    with made.set.client() as client:

        def states() -> set[str]:
            return {client.get(f"/v1/tasks/{task}").json()["state"] for task in tasks}

        until(lambda: states() == {"succeeded"}, "each task has succeeded")
        for number, task in enumerate(tasks):
            assert client.get(f"/v1/tasks/{task}/stdout").text == f"{number}\n"

        def slots_are_those_of_the_set() -> bool:
            live = [each for each in operator.allocations() if each["ClientStatus"] in ("running", "pending")]
            idle: int = client.get("/readyz").json()["slots_idle"]
            return len(live) == operator.containers() == idle

        until(slots_are_those_of_the_set, "the slots that run are those that the set has")
