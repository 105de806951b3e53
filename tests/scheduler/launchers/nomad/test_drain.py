"""A node that an operator drains, by Nomad's API on a real agent: nothing new begins there, and no task is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ops.nomad.agent import Agent
from tests.scheduler.launchers.nomad.agents import NODE
from tests.scheduler.launchers.nomad.conftest import StartClusterSet
from tests.scheduler.launchers.nomad.operating import Held, until

FOR_EVER_S = 3600
AT_ONCE = -1e-9
"""A deadline of -1 ns: Nomad stops what runs."""


class Drain:
    """The switch of one node."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        (node,) = (each for each in agent.ask("GET", "/v1/nodes").json() if each["Name"] == NODE)
        self._path = f"/v1/node/{node['ID']}"

    def on(self, deadline_s: float) -> None:
        self._ask("drain", {"DrainSpec": {"Deadline": round(deadline_s * 1e9), "IgnoreSystemJobs": False}})

    def off(self) -> None:
        self._ask("drain", {"DrainSpec": None, "MarkEligible": True})

    def _ask(self, what: str, body: dict[str, Any]) -> None:
        answer = self._agent.ask("POST", f"{self._path}/{what}", json=body)
        assert answer.is_success, answer.text


@pytest.fixture
def drain(agent: Agent) -> Iterator[Drain]:
    """It is off again when the test ends."""
    switch = Drain(agent)
    yield switch
    switch.off()


def submit(client: httpx.Client, *argv: str) -> str:
    answer = client.post(
        "/v1/run/general-compute/base:bookworm",
        params=[("arg", each) for each in argv],
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.text
    found: str = answer.json()["id"]
    return found


def slots(client: httpx.Client, state: str) -> int:
    found: int = client.get("/readyz").json()[f"slots_{state}"]
    return found


def task(client: httpx.Client, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/tasks/{task_id}").json()
    return found


def test_what_runs_on_a_drained_node_ends_and_what_waits_is_told_why(
    cluster_set: StartClusterSet, drain: Drain
) -> None:
    made = cluster_set()
    with made.set.client() as client:
        idle = client.post("/v1/run/ncat:1", params={"queue_timeout_s": 120}, content=b"idle", timeout=150)
        assert idle.content == b"idle", idle.text
        held = Held(made.set)
        until(lambda: slots(client, "running") == 1 and slots(client, "idle") == 1, "one runs, one is idle")
        drain.on(FOR_EVER_S)
        until(lambda: slots(client, "idle") == 0, "the idle slot goes")
        waiting = submit(client, "/bin/echo", "later")
        until(
            lambda: f"an operator drains node {NODE}" in (task(client, waiting)["waiting_for"] or ""),
            "a task that waits is told why",
        )
        assert slots(client, "running") == 1
        answer = held.end()
        assert (answer.status_code, answer.content) == (200, b"first, last"), answer.text
        until(lambda: client.get("/readyz").status_code == 503, "the set is not ready")
        drain.off()
        until(lambda: task(client, waiting)["state"] == "succeeded", "it runs where slots start again")
        assert task(client, waiting)["attempts"] == 1


def test_what_still_runs_at_a_drains_deadline_is_run_again_or_answered(
    cluster_set: StartClusterSet, drain: Drain
) -> None:
    made = cluster_set()
    with made.set.client() as client:
        long = submit(client, "/bin/sleep", "3600")
        held = Held(made.set)
        until(lambda: slots(client, "running") == 2, "both run")
        drain.on(AT_ONCE)
        until(lambda: slots(client, "running") == 0, "both are stopped")
        # Its input is half consumed: nobody can run it again.
        answer = held.end()
        assert answer.status_code >= 500, answer.text
        assert answer.json()["executed"] is True
        until(lambda: task(client, long)["state"] == "queued", "the async task waits again")
        drain.off()
        until(lambda: task(client, long)["state"] == "running", "it runs again")
        assert task(client, long)["attempts"] == 2
        assert client.post(f"/v1/tasks/{long}/cancel").status_code == 200
        until(lambda: task(client, long)["state"] == "cancelled", "it is cancelled")
