"""Decides which nodes change hands, where accounts need nodes of their own and none is free. Pure.

A node is emptied for another party if nothing has run there for a while, or if its tenant has more than its share. A
node that is emptied starts nothing; what runs there ends first. `tenancy` has the states of a node.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Final

from scheduler.policy.books import Books
from scheduler.policy.decisions import Decision
from scheduler.policy.giving_way import tell_to_give_way
from scheduler.policy.limits import SCAN_LIMIT
from scheduler.policy.node import Node, Standing
from scheduler.policy.pool import NEVER, Pool, Slot
from scheduler.policy.supply import Supply
from scheduler.policy.tenancy import SHARERS, Parties, Tenure, Use

CLAIMS: Final = "claims"
"""The kind of the timer for the next look at the claims."""
LOOK_EVERY_S: Final = 0.1
"""How often, in seconds, the claims are looked at while there are any: a look compares all nodes."""
TURN_FACTOR_MOST: Final = 6.0
"""A tenant's turn on a node grows with its weight, up to this many times `Limits.node_turn_s`: a larger weight must
not starve others."""


class Claims:
    """The parties that want a node and found none free. `books.homeless` says which pools these are."""

    def __init__(self, books: Books, supply: Supply, parties: Parties) -> None:
        self._books = books
        self._supply = supply
        self._parties = parties
        # By party: its pools that found no place, and since when the party has wanted a node.
        self._pools: dict[str, dict[Pool, None]] = {}
        self._since: dict[str, float] = {}
        self._timer_set = False
        self._look_at = 0.0

    def due(self) -> None:
        """The time of the timer has come."""
        self._timer_set = False
        self._look_at = 0.0

    def look(self, decisions: list[Decision], now: float) -> bool:
        """Empty nodes for the parties that may have them; returns True if places may have become free by that.

        A claim that its party makes no longer is withdrawn, and the node serves its tenant again.
        """
        self._take_up(now)
        if not self._pools or now < self._look_at:
            return False
        self._look_at = now + LOOK_EVERY_S
        changed = self._withdraw(now)
        weights = _Weights(self._books, self._parties)
        held = Counter(_tenure(node).holder() for node in self._books.nodes)
        in_need = sorted(self._pools, key=lambda party: (held[party] / weights[party], self._since[party]))
        for party in in_need[:SCAN_LIMIT]:
            node = self._node_for(party, weights, now)
            if node is not None:
                self._empty(node, party, decisions, now)
                changed = True
        if self._pools and not self._timer_set:
            self._timer_set = True
            self._books.timers.set(LOOK_EVERY_S, now, (CLAIMS, ""))
        return changed

    def words(self, pool: Pool) -> str:
        """Say which node a pool without slots waits for; "" where it is no node that it waits for."""
        if pool.slots:
            return ""
        if self._parties.wait_for_leftovers:
            return "it waits until the slots of an earlier run of the set are removed from the nodes"
        party = self._parties.of(pool.key.account)
        if pool not in self._pools.get(party, ()):
            return ""
        own = "a node that accounts share" if party == SHARERS else "a node of its own"
        coming = [node for node in self._books.nodes if _tenure(node).heir == party]
        if not coming:
            count = sum(node.could_hold(pool.key) > 0 for node in self._books.nodes)
            return f"it waits for {own}: " + (
                "the only node that suits it serves another account"
                if count == 1
                else f"all {count} nodes that suit it serve other accounts"
            )
        running = min(sum(slot.task_id is not None for slot in self._slots(node)) for node in coming)
        if not running:
            return f"it waits for {own}: one is being cleaned of another account's slots"
        return (
            f"it waits for {own}: one is being emptied; tasks of another account end there first ({running})"
        )

    # -- claims

    def _take_up(self, now: float) -> None:
        for pool in self._books.homeless:
            party = self._parties.of(pool.key.account)
            self._pools.setdefault(party, {})[pool] = None
            self._since.setdefault(party, now)
        self._books.homeless.clear()

    def _withdraw(self, now: float) -> bool:
        """Drop what is wanted no longer. Returns True if a node serves its tenant, or anybody, again."""
        changed = False
        for party, pools in list(self._pools.items()):
            for pool in [pool for pool in pools if pool not in self._books.cramped]:
                del pools[pool]
            if not pools:
                del self._pools[party], self._since[party]
        for node in self._books.nodes:
            tenure = _tenure(node)
            if tenure.heir is not None and tenure.heir not in self._pools:
                tenure.withdraw()
                self._books.nodes.reopen(node)
                self._books.try_cramped(node, now)
                changed = True
        return changed

    # -- nodes

    def _node_for(self, party: str, weights: _Weights, now: float) -> Node | None:
        """The node that is emptied for the party now, if there is one that it may have."""
        pool = next(iter(self._pools[party]))
        suited = [
            node
            for node in self._books.nodes
            if node.is_up
            and node.standing is Standing.OPEN
            and node.could_hold(pool.key)
            and _tenure(node).use is not Use.FREE
        ]
        coming = [node for node in suited if _tenure(node).heir == party]
        free_soon = sum(node.could_hold(pool.key) for node in coming if not self._is_busy(node))
        others = [node for node in suited if _tenure(node).use is Use.HELD and _tenure(node).tenant != party]
        if len(pool.waiting) - len(pool.starting) > free_soon:
            idle = [node for node in others if self._idle_since(node) + self._books.limits.patience_s <= now]
            if idle:
                return min(idle, key=self._idle_since)
        if coming or not others:
            return None
        held = Counter(_tenure(node).holder() for node in suited)
        giver = max(
            {_tenure(node).tenant for node in others}, key=lambda tenant: held[tenant] / weights[tenant]
        )
        if (held[giver] - 1) * weights[party] >= (held[party] + 1) * weights[giver]:
            return max((node for node in others if _tenure(node).tenant == giver), key=_room)
        if held[party] or now - self._since[party] < self._books.limits.patience_s:
            return None
        overdue = partial(self._overdue_s, party=party, weights=weights, now=now)
        node = max(others, key=overdue)
        return node if overdue(node) >= 0.0 else None

    def _overdue_s(self, node: Node, party: str, weights: _Weights, now: float) -> float:
        """For how long the node's tenant has had it beyond its turn, in seconds; negative while its turn lasts."""
        tenure = _tenure(node)
        factor = min(max(weights[tenure.tenant] / weights[party], 1.0), TURN_FACTOR_MOST)
        return now - tenure.since - factor * self._books.limits.node_turn_s

    def _empty(self, node: Node, heir: str, decisions: list[Decision], now: float) -> None:
        _tenure(node).promise(heir)
        self._books.nodes.close(node)
        for slot in self._slots(node):
            if slot.task_id is None:
                decisions.append(self._supply.stop_idle(slot, now))
            elif slot in self._books.spare_on.get(node, ()) and not slot.gives_way:
                tell_to_give_way(slot, decisions, now)

    def _is_busy(self, node: Node) -> bool:
        """Return True if normal tasks run on the node, or are about to."""
        if node.starting_cpu:
            return True
        spare = self._books.spare_on.get(node, {})
        used = node.facts.cpu_percent - node.free_cpu
        return used > sum(slot.pool.cpu_percent for slot in spare)

    def _idle_since(self, node: Node) -> float:
        if self._is_busy(node):
            return NEVER
        return max((slot.since for slot in self._slots(node) if slot.task_id is None), default=0.0)

    def _slots(self, node: Node) -> list[Slot]:
        return list(self._books.slots_on.get(node, ()))


class _Weights:
    """The weights of parties; that of the accounts that share nodes is the sum of those that have something to run."""

    def __init__(self, books: Books, parties: Parties) -> None:
        accounts = books.turns.shares.accounts.values()
        active = [account for account in accounts if account.waiting or account.held]
        shared = sum(account.weight for account in active if parties.of(account.name) == SHARERS)
        self._of_sharers = max(1, shared)
        self._limits = books.limits

    def __getitem__(self, party: str | None) -> int:
        return self._of_sharers if not party else self._limits.weight_of(party)


def _tenure(node: Node) -> Tenure:
    assert node.tenure is not None
    return node.tenure


def _room(node: Node) -> int:
    return node.free_cpu
