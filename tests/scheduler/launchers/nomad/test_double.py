"""The double of Nomad's API answers as a real agent did, and the agent that is here answers as the recorded one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ops.nomad.agent import Agent
from scheduler.launchers.nomad.node_files import guest_name, seccomp_name
from scheduler.launchers.nomad.records import Allocation, Evaluation, Job, Node
from scheduler.launchers.seccomp import profile_json
from sets.guest import GUEST_BINARY
from tests.scheduler.launchers.nomad.conversation import Step, Talk, converse, losses, steps
from tests.scheduler.launchers.nomad.double import NomadDouble

(RECORDED,) = (Path(__file__).parent / "recordings").glob("conversation-*.json")
(RECORDED_LOSSES,) = (Path(__file__).parent / "recordings").glob("losses-*.json")
RECORDS: dict[str, type[msgspec.Struct]] = {
    "allocations": Allocation,
    "evaluations": Evaluation,
    "jobs": Job,
    "nodes": Node,
}
LISTS = {
    "a slot that runs": "allocations",
    "a slot that was killed": "allocations",
    "an image that the node lacks": "allocations",
    "an evaluation that placed a slot": "evaluations",
    "a slot that is too large for every node": "evaluations",
    "a CPU feature that no node has": "evaluations",
    "jobs of a set": "jobs",
    "nodes of a pool": "nodes",
}
SAID = {
    "a template that is no HCL": "Unclosed configuration block",
    "the same job again": "job already exists",
    "a signal to a slot that has ended": "not running",
}
"""The texts of errors that the platform looks for, or shows to operators."""


def read_alike(recorded: Step, found: Step) -> None:
    """Compare what the platform reads of two answers: status, the errors' texts, and the members of records."""
    assert found.status == recorded.status, found
    if text := SAID.get(found.name):
        assert text in str(recorded.body)
        assert text in str(found.body)
    if (what := LISTS.get(found.name)) is None:
        return
    record = RECORDS[what]
    theirs, ours = (facts(what, step.body) for step in (recorded, found))
    assert theirs == ours
    for field in msgspec.structs.fields(record):
        if any(field.encode_name in each for each in found.body):
            assert any(field.encode_name in each for each in recorded.body), field.encode_name


def facts(what: str, body: Any) -> Any:
    """The facts of a list that do not depend on the machine."""
    if what == "allocations":
        return [
            (
                each.group,
                each.client_status,
                each.desired_status,
                each.ended,
                sorted({event.type for event in each.events} & {"Received", "Terminated", "Driver Failure"}),
                [event.detail("exit_code") for event in each.events if event.type == "Terminated"],
            )
            for each in msgspec.convert(body, list[Allocation])
        ]
    if what == "evaluations":
        found = [each for each in msgspec.convert(body, list[Evaluation]) if each.status == "complete"]
        # A set, as a busy agent may look at a blocked job again, and complete one evaluation for each look.
        return {
            str((group, metric.constraint_filtered, metric.dimension_exhausted, metric.nodes_exhausted))
            for each in found
            for group, metric in (each.unplaced or {}).items()
        }
    if what == "jobs":
        return [(each.id, each.stopped, each.groups) for each in msgspec.convert(body, list[Job])]
    return [each.takes_slots for each in msgspec.convert(body, list[Node])]


def test_the_double_answers_as_the_recorded_agent_did() -> None:
    recorded = steps(RECORDED.read_bytes())
    double = NomadDouble()
    try:
        talk = Talk(double.url, "/var/lib/general-compute", "sha256:" + "1" * 64, "guest", "slots.json")
        held = list(converse(talk))
    finally:
        double.close()
    assert [step.name for step in held] == list(recorded)
    for step in held:
        read_alike(recorded[step.name], step)


def test_the_double_loses_and_finds_its_node_as_the_recorded_cluster_did() -> None:
    recorded = steps(RECORDED_LOSSES.read_bytes())
    double = NomadDouble()
    hanging = "registry.example/large/image:1"
    double.images_hanging.add(hanging)
    try:
        talk = Talk(double.url, "/var/lib/general-compute", "sha256:" + "1" * 64, "guest", "slots.json")
        held = list(losses(talk, hanging, double.lose_node, double.find_node))
    finally:
        double.close()
    assert [step.name for step in held] == list(recorded)
    for step in held:
        theirs, ours = (
            [(each.group, each.lost, each.ended, each.desired_status) for each in found]
            for found in (
                msgspec.convert(answer.body, list[Allocation]) for answer in (recorded[step.name], step)
            )
        )
        assert theirs == ours


def test_the_agent_that_is_here_answers_as_the_recorded_one(agent: Agent, engine: Any) -> None:
    recorded = steps(RECORDED.read_bytes())
    run = engine.api.inspect_image("ncat:1")["Id"]
    names = guest_name(GUEST_BINARY.read_bytes()), seccomp_name(profile_json())
    for step in converse(Talk(agent.url, str(agent.node_folder), run, *names)):
        read_alike(recorded[step.name], step)


@pytest.mark.parametrize("name", LISTS)
def test_each_compared_step_was_recorded(name: str) -> None:
    assert name in steps(RECORDED.read_bytes())
