"""The book of a cluster's nodes: the cluster's records come in, and how each node stands for a set comes out. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from scheduler.launchers.nomad.orders import NodeState
from scheduler.launchers.nomad.records import Node
from scheduler.policy.node import Standing

_RANK: Final = {Standing.OPEN: 0, Standing.CLOSED: 1, Standing.DRAINED: 2}


class NodeBook:
    """The nodes of one node pool. Each call returns what has changed for the set."""

    def __init__(self, node_pool: str) -> None:
        self._node_pool = node_pool
        # By Nomad's own id: a machine that was set up again has its name twice for a while.
        self._nodes: dict[str, Node] = {}
        self._told: dict[str, NodeState] = {}

    @property
    def taking(self) -> int:
        """How many nodes take slots."""
        return sum(node.takes_slots for node in self._nodes.values())

    def all(self) -> list[NodeState]:
        """How each node stands, for a set that connects."""
        return list(self._told.values())

    def listed(self, nodes: Iterable[Node]) -> list[NodeState]:
        """Take in the cluster's list of all nodes."""
        self._nodes = {node.id: node for node in nodes}
        return self._changes()

    def seen(self, node: Node, *, gone: bool) -> list[NodeState]:
        """Take in an event. `gone`: the node has left the cluster."""
        if gone or node.pool not in ("", self._node_pool):
            self._nodes.pop(node.id, None)
        else:
            self._nodes[node.id] = node
        return self._changes()

    def _changes(self) -> list[NodeState]:
        by_name: dict[str, list[NodeState]] = {}
        for node in self._nodes.values():
            by_name.setdefault(node.name, []).append(_state(node))
        now = {name: best(states) for name, states in by_name.items()}
        gone = [
            NodeState(name, Standing.CLOSED, f"node {name} has left the cluster's node pool")
            for name in self._told.keys() - now.keys()
        ]
        changed = [state for name, state in now.items() if self._told.get(name) != state]
        self._told = now
        return changed + gone


def best(states: Iterable[NodeState]) -> NodeState:
    """The state of a set that may use any of these nodes, at least one."""
    return min(states, key=lambda state: _RANK[state.standing])


def _state(node: Node) -> NodeState:
    if node.drain:
        return NodeState(node.name, Standing.DRAINED, f"an operator drains node {node.name}")
    if node.status != "ready":
        words = f"node {node.name} is {node.status or 'not ready'} for the cluster"
        return NodeState(node.name, Standing.CLOSED, words)
    if node.eligibility != "eligible":
        return NodeState(node.name, Standing.CLOSED, f"node {node.name} is marked ineligible in the cluster")
    return NodeState(node.name, Standing.OPEN)
