"""The gate between the executor's nodes and the floor: while a set drains, the floor hears that every node drains."""

from __future__ import annotations

from scheduler.floor import Floor
from scheduler.policy.node import NodeFacts


class NodeGate:
    """Passes the executor's events about nodes on to the floor (`scheduler.execution.ExecutorEvents`).

    `own_node`: the set's own machine, where tasks run on it. While the gate is shut no task begins anywhere and idle
    slots end; what runs goes on. It remembers which nodes take tasks, for the time when it opens again.
    """

    def __init__(self, floor: Floor, own_node: NodeFacts | None) -> None:
        self._floor = floor
        self._ready = {} if own_node is None else {own_node.id: own_node}
        self._shut = False

    def shut(self) -> None:
        """Let no task begin. Harmless when it is shut."""
        if not self._shut:
            self._shut = True
            for node in list(self._ready):
                self._floor.node_draining(node)

    def open(self) -> None:
        """Let tasks begin again. Harmless when it is open."""
        if self._shut:
            self._shut = False
            for facts in list(self._ready.values()):
                self._floor.node_ready(facts)

    # -- events

    def node_ready(self, facts: NodeFacts) -> None:
        self._ready[facts.id] = facts
        if not self._shut:
            self._floor.node_ready(facts)

    def node_draining(self, node_id: str) -> None:
        self._ready.pop(node_id, None)
        self._floor.node_draining(node_id)

    def node_lost(self, node_id: str, reason: str) -> None:
        self._ready.pop(node_id, None)
        self._floor.node_lost(node_id, reason)
