"""Says in words how a slot fares on a cluster: a pure function of its allocation and its job's evaluation."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec

from scheduler.launchers.endings import KILLED, how_it_ended
from scheduler.launchers.nomad.records import Allocation, Evaluation, Metric, TaskEvent


class Kind(StrEnum):
    """How a slot fares. Everything between `RUNNING` and `NODE_UNKNOWN` is a reason for which it does not run."""

    NOT_EVALUATED = "not_evaluated"
    PLACING = "placing"
    NO_CAPACITY = "no_capacity"
    NO_NODE = "no_node"
    CONSTRAINT = "constraint"
    STARTING = "starting"
    PULLING = "pulling"
    RUNNING = "running"
    NODE_UNKNOWN = "node_unknown"
    IMAGE_UNKNOWN = "image_unknown"
    REGISTRY_DENIED = "registry_denied"
    REGISTRY_DOWN = "registry_down"
    DRIVER_FAILURE = "driver_failure"
    NODE_LOST = "node_lost"
    STOPPED = "stopped"
    ENDED = "ended"
    OUT_OF_MEMORY = "out_of_memory"
    DENIED = "denied"
    API_DOWN = "api_down"


BLOCKED: Final = frozenset({Kind.NO_CAPACITY, Kind.NO_NODE, Kind.CONSTRAINT})
"""Nomad waits for the cluster to change; the slot may start at any time later."""

OVER: Final = frozenset(
    {
        Kind.IMAGE_UNKNOWN,
        Kind.REGISTRY_DENIED,
        Kind.REGISTRY_DOWN,
        Kind.DRIVER_FAILURE,
        Kind.STOPPED,
        Kind.ENDED,
        Kind.OUT_OF_MEMORY,
    }
)
"""Nothing of the slot is left on its node. `NODE_LOST` is not among them: servers that lost sight of a node cannot know
what still runs there."""


class Verdict(msgspec.Struct, frozen=True):
    """How a slot fares, and the words for people."""

    kind: Kind
    words: str


_LOCAL: Final = re.compile(r"pull `(sha256:[0-9a-f]{64})`")
"""An image's id: no registry has such a name, so the engine had the image or nobody has."""
_IMAGE_UNKNOWN: Final = re.compile(
    r"manifest unknown|manifest for .* not found|no such image|repository does not exist|"
    r"repository name not known|name unknown",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(
    r"unauthorized|authentication required|access denied|denied: |no basic auth|forbidden", re.IGNORECASE
)
_REGISTRY_DOWN: Final = re.compile(
    r"no such host|connection refused|connection reset|i/o timeout|deadline exceeded|timeout|"
    r"no route to host|network is unreachable|server misbehaving|toomanyrequests|too many requests|"
    r"received unexpected http status|\b50[0234]\b|\beof\b",
    re.IGNORECASE,
)
_PULL: Final = re.compile(r"failed to pull|pull|image|registry|manifest", re.IGNORECASE)
_PULLING: Final = re.compile(r"downloading image|pull", re.IGNORECASE)
_NOT_LAID_OUT: Final = re.compile(r"/gc/bin/guest-[^:]*: no such file|opening seccomp profile", re.IGNORECASE)
"""Said of a node that lacks the files of this build, for example after an upgrade of the set alone."""
_CONTAINER_ID: Final = re.compile(r"(?<!sha256:)\b([0-9a-f]{12})[0-9a-f]{52}\b")
_SAID_CHARS: Final = 500
"""How much of a driver's error is quoted, in characters."""
_CPU_FEATURE: Final = re.compile(r"\$\{meta\.gc_cpu_([^}]+)\}")
_VOLUMES: Final = "missing compatible host volumes"
_DIMENSIONS: Final = {"cpu": "CPU", "memory": "memory", "cores": "whole cores", "disk": "disk"}


def explain(group: str, allocation: Allocation | None, evaluation: Evaluation | None) -> Verdict:
    """Say how the slot `group` fares, by its latest allocation and its job's latest evaluation, where there are any."""
    if allocation is not None:
        return _placed(allocation)
    if evaluation is None:
        return Verdict(Kind.NOT_EVALUATED, "no server of the cluster has evaluated its job yet")
    metric = (evaluation.unplaced or {}).get(group)
    if metric is not None:
        return unplaced(metric)
    if evaluation.status == "failed":
        said = evaluation.description or "no reason was given"
        return Verdict(Kind.NO_CAPACITY, f"the cluster gave its job up: {said}")
    return Verdict(Kind.PLACING, "the cluster is placing it on a node")


def unplaced(metric: Metric) -> Verdict:
    """Say why the scheduler found no node."""
    exhausted = metric.dimension_exhausted or {}
    filtered = metric.constraint_filtered or {}
    if metric.quota_exhausted:
        return Verdict(
            Kind.NO_CAPACITY, f"the namespace's quota is used up: {', '.join(metric.quota_exhausted)}"
        )
    if exhausted or metric.nodes_exhausted:
        what = " and ".join(sorted({_DIMENSIONS.get(name.split()[0], name) for name in exhausted}))
        full = max([metric.nodes_exhausted, *exhausted.values()])
        others = f"; {_counted(metric.nodes_filtered)} not suitable" if metric.nodes_filtered else ""
        return Verdict(
            Kind.NO_CAPACITY,
            f"no node has enough free {what or 'room'}: {_counted(full)} full{others}",
        )
    if filtered:
        return Verdict(Kind.CONSTRAINT, "; ".join(_constraint(*each) for each in sorted(filtered.items())))
    return Verdict(Kind.NO_NODE, "no node is ready in the cluster's datacenters and node pool of this set")


def _constraint(text: str, nodes: int) -> str:
    if feature := _CPU_FEATURE.search(text):
        return f"no node has the CPU feature {feature[1]}: {_counted(nodes)} without it"
    if text == _VOLUMES:
        return f"{_counted(nodes)} without the platform's host volumes; lay them out with `python -m ops.nomad layout`"
    return f"no node meets the constraint {text}: {_counted(nodes)} left out"


def _counted(nodes: int) -> str:
    return "1 node is" if nodes == 1 else f"{nodes} nodes are"


def _placed(allocation: Allocation) -> Verdict:
    where = f"node {allocation.node_name or allocation.node_id[:8]}"
    match allocation.client_status:
        case "pending":
            last = allocation.events[-1] if allocation.events else TaskEvent()
            if last.type == "Driver" and _PULLING.search(last.display):
                return Verdict(Kind.PULLING, f"{where} is pulling the image")
            return Verdict(Kind.STARTING, f"{where} is starting it")
        case "running":
            return Verdict(Kind.RUNNING, f"it runs on {where}")
        case "unknown":
            return Verdict(
                Kind.NODE_UNKNOWN, f"{where} does not report to the cluster, so the slot may run there or not"
            )
        case "lost":
            return Verdict(Kind.NODE_LOST, f"{where} stopped reporting, and the cluster gave it up")
    return _ended(allocation, where)


def _ended(allocation: Allocation, where: str) -> Verdict:
    for event in reversed(allocation.events):
        match event.type:
            case "Driver Failure":
                return _failed(event.detail("driver_error") or event.display, where)
            case "Failed Validation" | "Setup Failure" | "Failed Artifact Download":
                said = event.detail("validation_error") or event.detail("setup_error") or event.display
                return Verdict(Kind.DRIVER_FAILURE, f"{where} could not set it up: {said}")
            case "Terminated":
                return _terminated(event)
    if allocation.desired_status in ("stop", "evict"):
        return Verdict(Kind.STOPPED, "its allocation was stopped and has ended")
    said = allocation.description or "no reason was given"
    return Verdict(Kind.ENDED, f"its allocation on {where} ended: {said}")


def _failed(said: str, where: str) -> Verdict:
    """Tell a fault of the image's name from one of the registry, and both from one of the node."""
    if _NOT_LAID_OUT.search(said):
        words = (
            f"{where} does not have the files of this build; lay them out with `python -m ops.nomad layout`"
        )
        return Verdict(Kind.DRIVER_FAILURE, words)
    said = _CONTAINER_ID.sub(r"\1", said)[:_SAID_CHARS]
    if local := _LOCAL.search(said):
        return Verdict(
            Kind.IMAGE_UNKNOWN,
            f"{where} does not have the image {local[1]}; push it to a registry, or load it on every node",
        )
    if _PULL.search(said):
        if _IMAGE_UNKNOWN.search(said):
            return Verdict(Kind.IMAGE_UNKNOWN, f"no such image: {said}")
        if _REGISTRY_DOWN.search(said):
            return Verdict(Kind.REGISTRY_DOWN, f"the registry did not deliver the image to {where}: {said}")
        if _DENIED.search(said):
            return Verdict(Kind.REGISTRY_DENIED, f"the registry refused the image to {where}: {said}")
    return Verdict(Kind.DRIVER_FAILURE, f"{where} could not start it: {said}")


def _terminated(event: TaskEvent) -> Verdict:
    code = int(event.detail("exit_code") or 0)
    if code == KILLED and event.detail("oom_killed") == "true":
        return Verdict(Kind.OUT_OF_MEMORY, f"{how_it_ended(code)}, as its memory was used up")
    return Verdict(Kind.ENDED, how_it_ended(code))
