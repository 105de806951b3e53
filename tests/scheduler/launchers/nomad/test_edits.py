"""Jobs that an operator edits or scales on a real agent: no slot that nobody ordered stays, and tasks go on."""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from ops.nomad.agent import Agent
from tests.conftest import StartSet
from tests.ports import free_port
from tests.scheduler.launchers.nomad.conftest import ClusterSet
from tests.scheduler.launchers.nomad.operating import Operator, run, until

Job = dict[str, Any]


def with_two_of_its_slot(job: Job) -> None:
    job["TaskGroups"][0]["Count"] = 2


def with_none_of_its_slot(job: Job) -> None:
    job["TaskGroups"][0]["Count"] = 0


def with_more_memory(job: Job) -> None:
    job["TaskGroups"][0]["Tasks"][0]["Resources"]["MemoryMB"] += 16


def with_another_slot(job: Job) -> None:
    """A copy of its slot under another name."""
    group = copy.deepcopy(job["TaskGroups"][0])
    group["Name"] = f"by-hand-{secrets.token_hex(4)}"
    job["TaskGroups"].append(group)


def with_another_name(job: Job) -> None:
    job["TaskGroups"][0]["Name"] = f"by-hand-{secrets.token_hex(4)}"


def with_other_meta(job: Job) -> None:
    job["Meta"]["gc.account"] = "other"


def with_another_priority(job: Job) -> None:
    job["Priority"] = 60


def live(operator: Operator) -> list[dict[str, Any]]:
    return [each for each in operator.allocations() if each["ClientStatus"] in ("running", "pending")]


@pytest.fixture(scope="module")
def cluster_set(
    agent: Agent, start_set: StartSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterSet]:
    """One set for all, as each case leaves it as it was."""
    made = ClusterSet(
        agent, tmp_path_factory.mktemp("cluster"), f"te{free_port()}x{os.getpid()}", start_set, "", {}
    )
    yield made
    made.close()


@pytest.fixture
def operator(cluster_set: ClusterSet, engine: docker.DockerClient) -> Operator:
    """Of a set with one idle slot, of which Nomad says that it runs."""
    operator = Operator(cluster_set, engine)
    run(operator, b"before")
    until(lambda: [each["ClientStatus"] for each in live(operator)] == ["running"], "Nomad says that it runs")
    return operator


@pytest.mark.parametrize(
    "edit",
    [
        with_two_of_its_slot,
        with_none_of_its_slot,
        with_more_memory,
        with_another_slot,
        with_another_name,
        with_other_meta,
        with_another_priority,
    ],
)
def test_an_edited_job_leaves_no_slot_that_nobody_ordered(
    operator: Operator, edit: Callable[[Job], None]
) -> None:
    (before,) = live(operator)
    job: Job = operator.press("GET", f"/v1/job/{before['JobID']}").json()
    edit(job)
    made = operator.press("POST", "/v1/jobs", json={"Job": job}).json()
    until(
        lambda: operator.press("GET", f"/v1/evaluation/{made['EvalID']}").json()["Status"] == "complete",
        "Nomad has taken the edit in",
    )
    until_the_set_has_what_runs(operator)
    run(operator, b"after")
    until_the_set_has_what_runs(operator)


@pytest.mark.parametrize("count", [0, 3])
def test_a_scaled_job_leaves_no_slot_that_nobody_ordered(operator: Operator, count: int) -> None:
    (before,) = live(operator)
    scaled = {"Count": count, "Target": {"Group": before["TaskGroup"]}, "Message": "by hand"}
    made = operator.press("POST", f"/v1/job/{before['JobID']}/scale", json=scaled).json()
    until(
        lambda: operator.press("GET", f"/v1/evaluation/{made['EvalID']}").json()["Status"] == "complete",
        "Nomad has taken the number in",
    )
    until_the_set_has_what_runs(operator)
    run(operator, b"after")
    until_the_set_has_what_runs(operator)


def until_the_set_has_what_runs(operator: Operator) -> None:
    """Each allocation that lives runs, has its container, and is a slot of the set."""

    def same() -> bool:
        with operator.set.client() as client:
            idle: int = client.get("/readyz").json()["slots_idle"]
        found = live(operator)
        running = all(each["ClientStatus"] == "running" for each in found)
        return running and len(found) == operator.containers() == idle

    until(same, "what lives is what the set has")
