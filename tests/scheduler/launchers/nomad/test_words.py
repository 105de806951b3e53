"""Words for how a slot fares, from what a real agent answered (recordings/, the version is in the files' names)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from scheduler.launchers.nomad.records import Allocation, Evaluation
from scheduler.launchers.nomad.words import Kind, Verdict, explain
from tests.scheduler.launchers.nomad.conversation import Step, steps

RECORDINGS = Path(__file__).parent / "recordings"
STEPS: dict[str, Step] = {}
for _file in sorted(RECORDINGS.glob("*.json")):
    STEPS |= steps(_file.read_bytes())


def verdict(name: str) -> Verdict:
    """Of the only slot in a recorded list of allocations or evaluations."""
    body = STEPS[name].body
    if "TaskStates" in body[0]:
        (allocation,) = msgspec.convert(body, list[Allocation])
        return explain(allocation.group, allocation, None)
    evaluation = next(each for each in msgspec.convert(body, list[Evaluation]) if each.unplaced)
    (group,) = evaluation.unplaced or {}
    return explain(group, None, evaluation)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("a slot that runs", Kind.RUNNING, "it runs on node local"),
        ("a slot that was killed", Kind.ENDED, "its container was killed (exit code 137)"),
        (
            "a slot that is too large for every node",
            Kind.NO_CAPACITY,
            "no node has enough free memory: 1 node is full",
        ),
        (
            "a CPU feature that no node has",
            Kind.CONSTRAINT,
            "no node has the CPU feature nosuch: 1 node is without it",
        ),
        (
            "an image that the node lacks",
            Kind.IMAGE_UNKNOWN,
            f"node local does not have the image sha256:{'0' * 64}; push it to a registry, or load it on every node",
        ),
        ("a manifest that the registry lacks", Kind.IMAGE_UNKNOWN, "no such image: "),
        ("a registry that refuses", Kind.REGISTRY_DENIED, "the registry refused the image to node local"),
        ("a registry that fails", Kind.REGISTRY_DOWN, "the registry did not deliver the image to node local"),
        ("a registry that is not there", Kind.REGISTRY_DOWN, "connection refused"),
        ("an image that is being pulled", Kind.PULLING, "node local is pulling the image"),
        (
            "a node without the guest of this build",
            Kind.DRIVER_FAILURE,
            "node local does not have the files of this build; lay them out with `python -m ops.nomad layout`",
        ),
        (
            "a node without the seccomp profile of this build",
            Kind.DRIVER_FAILURE,
            "node local does not have the files of this build",
        ),
        ("a slot that runs on a lost node", Kind.NODE_UNKNOWN, "does not report to the cluster"),
        (
            "a slot that starts on a lost node",
            Kind.NODE_LOST,
            "stopped reporting, and the cluster gave it up",
        ),
        (
            "a slot that was deregistered, when its node is back",
            Kind.ENDED,
            "its container was killed (exit code 137)",
        ),
    ],
)
def test_what_a_real_agent_answered_becomes_words(name: str, kind: Kind, words: str) -> None:
    found = verdict(name)
    assert found.kind is kind
    assert words in found.words


def made(status: str, *events: tuple[str, dict[str, str]], **fields: Any) -> Allocation:
    history = [{"Type": kind, "DisplayMessage": kind, "Details": details} for kind, details in events]
    raw = {"ID": "a1", "JobID": "job", "TaskGroup": "s1", "NodeName": "n1", "ClientStatus": status}
    states = {"TaskStates": {"guest": {"State": "dead", "Events": history}}}
    return msgspec.convert({**raw, **states, **fields}, Allocation)


@pytest.mark.parametrize(
    ("allocation", "kind", "words"),
    [
        (made("pending"), Kind.STARTING, "node n1 is starting it"),
        (
            made("unknown"),
            Kind.NODE_UNKNOWN,
            "node n1 does not report to the cluster, so the slot may run there or not",
        ),
        (made("lost"), Kind.NODE_LOST, "node n1 stopped reporting, and the cluster gave it up"),
        (
            made("failed", ("Terminated", {"exit_code": "137", "oom_killed": "true"})),
            Kind.OUT_OF_MEMORY,
            "its container was killed (exit code 137), as its memory was used up",
        ),
        (
            made("complete", ("Terminated", {"exit_code": "3"})),
            Kind.ENDED,
            "its container ended with exit code 3",
        ),
        (
            made("failed", ("Driver Failure", {"driver_error": "failed to create container: no space left"})),
            Kind.DRIVER_FAILURE,
            "node n1 could not start it: failed to create container: no space left",
        ),
        (
            made("failed", ("Failed Validation", {"validation_error": "1 error: bad field"})),
            Kind.DRIVER_FAILURE,
            "node n1 could not set it up: 1 error: bad field",
        ),
        (made("complete", DesiredStatus="stop"), Kind.STOPPED, "its allocation was stopped and has ended"),
        (
            made("failed", ClientDescription="Failed tasks"),
            Kind.ENDED,
            "its allocation on node n1 ended: Failed tasks",
        ),
    ],
)
def test_every_state_of_an_allocation_has_words(allocation: Allocation, kind: Kind, words: str) -> None:
    assert explain("s1", allocation, None) == Verdict(kind, words)


def test_a_drivers_error_is_quoted_within_bounds_and_names_a_container_as_people_do() -> None:
    error = f"Failed to start container {'ab' * 32}: of image sha256:{'cd' * 32}: {'x' * 1000}"
    words = explain("s1", made("failed", ("Driver Failure", {"driver_error": error})), None).words
    assert f"container {'ab' * 6}: of image sha256:{'cd' * 32}: xxx" in words
    assert len(words) < 600


def evaluated(status: str = "complete", **metric: Any) -> Evaluation:
    unplaced = {"FailedTGAllocs": {"s1": metric}} if metric else {}
    return msgspec.convert({"ID": "e1", "JobID": "job", "Status": status, **unplaced}, Evaluation)


@pytest.mark.parametrize(
    ("evaluation", "kind", "words"),
    [
        (None, Kind.NOT_EVALUATED, "no server of the cluster has evaluated its job yet"),
        (evaluated(), Kind.PLACING, "the cluster is placing it on a node"),
        (evaluated("failed"), Kind.NO_CAPACITY, "the cluster gave its job up: no reason was given"),
        (
            evaluated(NodesEvaluated=0),
            Kind.NO_NODE,
            "no node is ready in the cluster's datacenters and node pool of this set",
        ),
        (
            evaluated(NodesExhausted=2, NodesFiltered=1, DimensionExhausted={"cpu": 1, "memory": 1}),
            Kind.NO_CAPACITY,
            "no node has enough free CPU and memory: 2 nodes are full; 1 node is not suitable",
        ),
        (
            evaluated(NodesFiltered=2, ConstraintFiltered={"missing compatible host volumes": 2}),
            Kind.CONSTRAINT,
            "2 nodes are without the platform's host volumes; lay them out with `python -m ops.nomad layout`",
        ),
        (
            evaluated(NodesFiltered=1, ConstraintFiltered={"${attr.kernel.name} = linux": 1}),
            Kind.CONSTRAINT,
            "no node meets the constraint ${attr.kernel.name} = linux: 1 node is left out",
        ),
        (
            evaluated(QuotaExhausted=["cpu exhausted"]),
            Kind.NO_CAPACITY,
            "the namespace's quota is used up: cpu exhausted",
        ),
    ],
)
def test_every_reason_for_which_a_slot_is_not_placed_has_words(
    evaluation: Evaluation | None, kind: Kind, words: str
) -> None:
    assert explain("s1", None, evaluation) == Verdict(kind, words)


def test_the_words_of_another_slot_of_the_job_are_not_its_own() -> None:
    assert explain("s2", None, evaluated(NodesExhausted=1)).kind is Kind.PLACING
