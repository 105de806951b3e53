"""Decides where tasks start a slot that wait beside an idle one whose node is full, while another node has room. Pure.

A pool with as many slots as waiting tasks asks for no other. Where its node stays full, its tasks would wait there
although cores are free elsewhere. And spare pools take free places only, so idle slots that hold all places would keep
cores from them that nobody uses. So the pools that wait in this way are looked at now and then, not at each event: a
slot takes longer to start than most tasks take to end, and the nodes are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nlargest
from itertools import islice
from typing import Final

from scheduler.policy.books import Books
from scheduler.policy.decisions import Decision
from scheduler.policy.limits import SCAN_LIMIT
from scheduler.policy.matching import Matching
from scheduler.policy.node import NODES_COMPARED, Node
from scheduler.policy.pool import NEVER, Pool, Slot
from scheduler.policy.supply import Supply
from scheduler.policy.turns import Turns

ELSEWHERE: Final = "elsewhere"
"""The kind of the timer for the next look."""
LOOK_EVERY_S: Final = 0.1
"""How often, in seconds, it is looked while tasks wait beside idle slots: for so long they wait for their own node."""


class Elsewhere:
    """Starts slots on nodes with room for tasks whose idle slots are on full ones."""

    def __init__(self, books: Books, supply: Supply, matching: Matching) -> None:
        self._books = books
        self._supply = supply
        self._matching = matching
        self._timer_set = False

    def arm(self, now: float) -> None:
        """Set the timer if tasks wait beside idle slots and there is more than one node, or spare ones for a place."""
        books = self._books
        if self._timer_set:
            return
        stuck = books.nodes.only is None and (books.turns.pools or books.spare_turns.pools)
        if stuck or (books.modest and books.spare_turns.shares.waiting):
            self._timer_set = True
            books.timers.set(LOOK_EVERY_S, now, (ELSEWHERE, ""))

    def look(self, decisions: list[Decision], now: float) -> None:
        """The time of the timer has come."""
        self._timer_set = False
        free = [node for node in self._books.nodes if node.takes_slots and node.free_cpu > node.starting_cpu]
        free = nlargest(NODES_COMPARED, free, key=_room)
        self._start(self._books.turns, free, decisions, now)
        self._start(self._books.spare_turns, free, decisions, now)
        self._sell(free, decisions, now)
        self.arm(now)

    def _start(self, turns: Turns, free: list[Node], decisions: list[Decision], now: float) -> None:
        if not free:
            return
        candidates = turns.in_turn(now)
        pools = [pool for pool in islice(candidates, SCAN_LIMIT) if self._is_stuck(pool, now)]
        candidates.close()
        for pool in pools:
            for _ in range(len(pool.waiting) - len(pool.starting)):
                node = next(self._nodes_for(pool, free), None)
                if node is None:
                    break
                unwanted = None if node in self._books.nodes.open else self._unwanted_on(node)
                full = pool.slots >= pool.most or self._books.caps.fill(pool.key)
                if full and (unwanted is None or unwanted.pool is not pool):
                    decisions.append(self._supply.stop_idle(next(iter(pool.idle)), now))
                if unwanted is not None:
                    decisions.append(self._supply.stop_idle(unwanted, now))
                decisions.append(self._supply.start(pool, node, now))
                if not pool.idle:
                    break

    def _sell(self, free: list[Node], decisions: list[Decision], now: float) -> None:
        """Start slots for spare tasks whose pools have no idle one, on places of others that are idle for a while."""
        for pool in list(islice(self._books.modest, SCAN_LIMIT)):
            wants = pool.is_spare and not pool.idle and len(pool.waiting) > len(pool.starting)
            if not wants or now < pool.retry_at or (pool.failures and pool.starting):
                continue
            if self._books.caps.fill(pool.key):
                continue
            for node in free:
                if (
                    pool.cpu_percent <= _room(node)
                    and pool.memory_mib <= node.free_memory
                    and node.suits(pool.key)
                    and self._matching.spare_gate.admits(node, pool, now)
                    and (cold := self._unwanted_on(node, now - self._books.limits.patience_s))
                ):
                    decisions.append(self._supply.stop_idle(cold, now))
                    decisions.append(self._supply.start(pool, node, now))
                    break

    @staticmethod
    def _is_stuck(pool: Pool, now: float) -> bool:
        """Return True if the pool's tasks have no room beside any of its slots, and it may start another."""
        return now >= pool.retry_at and not (
            (pool.failures and pool.starting)
            or any(pool.fits(slot.node) for slot in islice(pool.idle, SCAN_LIMIT))
        )

    def _nodes_for(self, pool: Pool, free: list[Node]) -> Iterator[Node]:
        for node in free:
            if (
                pool.cpu_percent <= _room(node)
                and pool.memory_mib <= node.free_memory
                and node.suits(pool.key)
                and not self._matching.is_kept_for_another(node, pool)
                and (node in self._books.nodes.open or (not pool.is_spare and self._unwanted_on(node)))
            ):
                yield node

    def _unwanted_on(self, node: Node, since: float = NEVER) -> Slot | None:
        """An idle slot on the node for which no task waits, and which has been idle since then at least."""
        for slot in islice(self._books.slots_on.get(node, ()), SCAN_LIMIT):
            if (
                slot in slot.pool.idle
                and len(slot.pool.idle) > len(slot.pool.waiting)
                and slot.since <= since
            ):
                return slot
        return None


def _room(node: Node) -> int:
    return node.free_cpu - node.starting_cpu
