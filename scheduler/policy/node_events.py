"""The events of a cell's nodes: they join and leave, drain, and stand for new slots or not. Pure."""

from __future__ import annotations

from scheduler.policy.books import Books
from scheduler.policy.decisions import Decision, DropSlot
from scheduler.policy.node import Health, Node, NodeFacts, Standing
from scheduler.policy.pool import Pool
from scheduler.policy.supply import Supply


class NodeEvents:
    """The part of a cell that hears of its nodes; `Cell` is the whole."""

    books: Books
    _supply: Supply

    def _decide(
        self, now: float, touched: Node | None = None, *, grown: Pool | None = None
    ) -> list[Decision]:
        raise NotImplementedError

    def slots_live(self, life_s: float | None) -> None:
        """The cluster ends each slot `life_s` after its start; None: nothing does."""
        self.books.slot_life_s = life_s

    def leftovers(self, now: float, *, gone: bool) -> list[Decision]:
        """Slots of an earlier run may be on the nodes, or are `gone`; meanwhile no slot starts."""
        parties = self.books.parties
        if parties is None:
            return []
        parties.wait_for_leftovers = not gone
        return self._nodes_changed(now)

    def node_ready(self, facts: NodeFacts, now: float) -> list[Decision]:
        """A node joined, or takes tasks again after it was drained."""
        node = self.books.nodes.get(facts.id)
        if node is None:
            self.books.nodes.add(facts)
        else:
            self.books.nodes.set_health(node, Health.READY)
        return self._nodes_changed(now)

    def node_draining(self, node_id: str, now: float) -> list[Decision]:
        """Nothing new begins on the node: its idle slots stop, its running tasks end first."""
        node = self.books.nodes.get(node_id)
        if node is None or node.health is not Health.READY:
            return []
        self.books.nodes.set_health(node, Health.DRAINING)
        return self._supply.stop_idle_on(node, now) + self._nodes_changed(now)

    def node_stands(self, node_id: str, standing: Standing, reason: str, now: float) -> list[Decision]:
        """The cluster that starts slots says whether it starts any on the node. One that is drained begins nothing."""
        node = self.books.nodes.stand(node_id, standing, reason)
        if node is None:
            return []
        stopped = [] if node.is_ready else self._supply.stop_idle_on(node, now)
        return stopped + self._nodes_changed(now)

    def node_lost(self, node_id: str, now: float) -> list[Decision]:
        """The node does not answer: its slots are gone, and the attempts that ran in them are lost."""
        node = self.books.nodes.get(node_id)
        if node is None:
            return []
        self.books.nodes.set_health(node, Health.LOST)
        decisions: list[Decision] = []
        for slot in list(self.books.slots_on.get(node, ())):
            self._supply.lose(slot, now)
            decisions.append(DropSlot(slot.id, f"its node {node_id} is lost"))
        self.books.forget_tenure(node_id)
        return decisions + self._nodes_changed(now)

    def _nodes_changed(self, now: float) -> list[Decision]:
        self.books.nodes_changed(now)
        return self._decide(now)
