"""Which waiting task runs in which idle slot: accounts in turn, each task where there is room for it. Pure."""

from __future__ import annotations

from itertools import islice

from scheduler.policy.books import Books
from scheduler.policy.decisions import Assign, Decision
from scheduler.policy.giving_way import Gate, make_room, nodes_wanted
from scheduler.policy.limits import SCAN_LIMIT
from scheduler.policy.node import Node
from scheduler.policy.pool import Pool, Slot
from scheduler.policy.turns import Turns


class Matching:
    """Assigns tasks to slots."""

    def __init__(self, books: Books, patience_s: float) -> None:
        self.spare_gate = Gate(books.timers)
        self._books = books
        # The pool for whose next task a node's free room is kept, while the pool's `kept_on` is that node.
        self._kept_for: dict[Node, Pool] = {}
        self._patience_s = patience_s

    def at_once(self, pool: Pool, task_id: str, now: float) -> Assign | None:
        """A slot for a task that has just arrived, where nobody waits before it. The way of most tasks."""
        slot: Slot | None = next(reversed(pool.idle))
        assert slot is not None
        node = slot.node
        if pool.cpu_percent > node.free_cpu or pool.memory_mib > node.free_memory or node in self._kept_for:
            slot = self._roomy_slot(pool)
            if slot is None:
                return None
        cold = slot.unused and slot.since >= now
        self._books.take(slot, task_id, now)
        return Assign(task_id, slot.id, cold)

    def is_first(self, pool: Pool) -> bool:
        """Return True if the pool's next task may have the slot of one that has just ended, although others wait.

        They then wait for slots of their own or for places, and neither becomes free; nobody waits for room alone. So
        this is no turn, and the order of turns stays.
        """
        books = self._books
        return not (
            books.turns.pools
            or books.demand.wanting
            or books.modest
            or books.cramped
            or books.caps.held_back
            or pool.is_spare
            or pool.ahead is not None
        )

    def hand_on(self, slot: Slot, now: float, cpu_us: int) -> Assign:
        """The slot goes from a task that has ended to the next one of its pool. The way of most tasks that waited."""
        books = self._books
        task_id = slot.pool.next_task()
        books.queue.leave(task_id)
        books.hand_on(slot, task_id, now, cpu_us)
        return Assign(task_id, slot.id, False)

    def run(self, decisions: list[Decision], now: float, touched: Node | None, grown: Pool | None) -> None:
        """Assign all that can run now.

        `touched`: only on this node has something become free. `grown`: only this pool has another task. What ran on no
        node before cannot run now for any other reason, so the rest need not be looked at.
        """
        books = self._books
        if not books.turns.pools:
            pass
        elif books.nodes.only is None and touched is not None:
            while (slot := self._next_on(touched, now)) is not None:
                self._run_next(slot, books.turns, decisions, now)
        elif books.nodes.only is None and grown is not None:
            # If the pool had other tasks before this one, it had no room for them.
            first = grown.takes_turns and not grown.is_spare and len(grown.waiting) == 1
            if first and (slot := self._roomy_slot(grown)) is not None:
                self._run_next(slot, books.turns, decisions, now)
        else:
            while (slot := self._next(now, touched)) is not None:
                self._run_next(slot, books.turns, decisions, now)
        if books.spare_turns.pools or books.spare_running:
            self._run_spare(decisions, now, touched)

    def _run_spare(self, decisions: list[Decision], now: float, touched: Node | None) -> None:
        """Spare tasks run where no normal one waits for room, and give way where one does."""
        books = self._books
        kept: set[Node] | None = None
        if books.turns.pools:
            if books.spare_running:
                make_room(books, decisions, now)
            kept = nodes_wanted(books, now)
        while (slot := self._next_spare(touched, kept, now)) is not None:
            self._run_next(slot, books.spare_turns, decisions, now)

    def _next_spare(self, touched: Node | None, kept: set[Node] | None, now: float) -> Slot | None:
        candidates = self._books.spare_turns.in_turn(now)
        try:
            for pool in islice(candidates, SCAN_LIMIT):
                slot = self._roomy_slot(pool, touched, kept, now)
                if slot is not None:
                    return slot
        finally:
            candidates.close()
        return None

    def _run_next(self, slot: Slot, turns: Turns, decisions: list[Decision], now: float) -> None:
        pool = slot.pool
        pool.held_back_at = pool.kept_on = None
        task_id = pool.next_task()
        decisions.append(self._assign(slot, task_id, pool.waiting[task_id], now))
        self._books.queue.leave(task_id)
        turns.took(pool, now)
        self._books.file(pool, now)

    def _next_on(self, node: Node, now: float) -> Slot | None:
        """The idle slot on the node of the pool whose turn it is there, and whose next task fits."""
        if node.free_cpu <= 0:
            return None
        idle: dict[Pool, Slot] = {}
        for slot in self._books.slots_on.get(node, ()):
            pool = slot.pool
            if pool.waiting and not pool.is_spare and slot in pool.idle:
                other = idle.get(pool)
                if other is None or slot.since >= other.since:
                    idle[pool] = slot
        for pool in self._books.turns.ordered(idle, now) if len(idle) > 1 else idle:
            if pool.fits(node):
                return idle[pool]
            if pool.held_back_at is None:
                pool.held_back_at = now
            elif now - pool.held_back_at >= self._patience_s and self._is_kept(node, pool):
                return None
        return None

    def _is_kept(self, node: Node, pool: Pool) -> bool:
        """Return True if the node's free room is kept for a pool that was held back for long."""
        if pool.kept_on is None or all(
            slot.node is not pool.kept_on for slot in islice(pool.idle, SCAN_LIMIT)
        ):
            pool.kept_on = node
            self._kept_for = {other: by for other, by in self._kept_for.items() if by.kept_on is other}
            self._kept_for[node] = pool
        return pool.kept_on is node

    def is_kept_for_another(self, node: Node, pool: Pool) -> bool:
        """Return True if the node's free room is kept for another pool's next task."""
        kept_for = self._kept_for.get(node)
        if kept_for is None or kept_for is pool:
            return False
        if kept_for.kept_on is not node:
            del self._kept_for[node]
            return False
        return True

    def _next(self, now: float, touched: Node | None) -> Slot | None:
        """The idle slot of the next account's first pool that fits into what is free."""
        only = self._books.nodes.only
        if only is not None and only.free_cpu <= 0:
            return None
        first = self._books.turns.first(now)
        if first is None:
            return None
        slot = next(reversed(first.idle))
        if first.fits(slot.node):
            return slot
        # Nodes whose free room is kept for pools that smaller tasks have run past for long enough.
        kept: set[Node] | None = None
        candidates = self._books.turns.in_turn(now)
        try:
            for pool in islice(candidates, SCAN_LIMIT):
                if (roomy := self._roomy_slot(pool, touched, kept)) is not None:
                    return roomy
                if pool.held_back_at is None:
                    pool.held_back_at = now
                elif now - pool.held_back_at >= self._patience_s:
                    if only is not None:
                        return None
                    kept = kept or set()
                    kept.add(max((slot.node for slot in islice(pool.idle, SCAN_LIMIT)), key=_free_cpu))
        finally:
            candidates.close()
        return None

    def _roomy_slot(
        self, pool: Pool, touched: Node | None = None, kept: set[Node] | None = None, now: float = 0.0
    ) -> Slot | None:
        """The pool's warmest idle slot on a node that has room for a task; `kept` are nodes to leave alone."""
        warmest = next(reversed(pool.idle))
        if self._books.nodes.only is not None:
            kept_free = kept is not None and warmest.node in kept
            return warmest if not kept_free and self._has_room(warmest.node, pool, now) else None
        full = set(kept) if kept else set()
        for slot in islice(reversed(pool.idle), SCAN_LIMIT):
            node = slot.node
            if node not in full:
                if self._has_room(node, pool, now) and not self.is_kept_for_another(node, pool):
                    return slot
                full.add(node)
        if touched is not None and touched not in full and self._has_room(touched, pool, now):
            slots = self._books.slots_on.get(touched, ())
            return next((slot for slot in slots if slot in pool.idle), None)
        return None

    def _has_room(self, node: Node, pool: Pool, now: float) -> bool:
        return pool.fits(node) and (not pool.is_spare or self.spare_gate.admits(node, pool, now))

    def _assign(self, slot: Slot, task_id: str, arrived_at: float, now: float) -> Assign:
        # A task that waited for its slot's start is cold; one that found a new slot ready is not.
        cold = slot.unused and slot.since >= arrived_at
        self._books.take(slot, task_id, now)
        return Assign(task_id, slot.id, cold)


def _free_cpu(node: Node) -> int:
    return node.free_cpu
