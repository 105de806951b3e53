"""Decides which slots give their memory to one for which the cluster has no room. Pure.

A cluster's slots reserve memory also while they are idle, so a newcomer would wait for the end of another's keep-alive.
Where a slot finds no room on a node, slots of other pools give theirs, and the node is kept: until the newcomer has its
slot, other pools only start those there that fit beside it. Otherwise small slots, and those for tasks to come, would
take what was given. A busy slot gives only after its task, which may take hours: all that time others go on starting.

Only the cluster knows how much it offers. A pool that finds no room although others gave enough has asked in vain: then
its account asks no more for as long as idle slots are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from scheduler.backoff import Backoff
from scheduler.policy.books import Books
from scheduler.policy.decisions import Decision
from scheduler.policy.giving_way import tell_to_give_way
from scheduler.policy.node import Node
from scheduler.policy.pool import Pool, Slot
from scheduler.policy.supply import Supply

KEPT: Final = "kept"
"""The kind of the timer for the next look at nodes that are kept."""
LOOK_EVERY_S: Final = 0.25
"""How often, in seconds, kept nodes are checked: a pool may no longer need its node."""
AGAIN_S: Final = 0.005
"""How soon, in seconds, a slot that found no room is started again once others give theirs. Starts that fail within
this time of each other count as one failure."""
LEAVING_S: Final = 10.0
"""How long a slot may still reserve its memory after it was stopped, in seconds."""


class _Keep(msgspec.Struct):
    """A node is kept for `slots` of a pool: they have room once the others hold `target_mib` at most.

    `gave_at`: when another slot gave its memory last, in seconds. `in_doubt`: by the cell's count there was room.
    """

    slots: int = 0
    target_mib: int = 0
    gave_at: float = 0.0
    in_doubt: bool = False


class Reclaim:
    """Nodes that are kept for pools whose slots found no room there."""

    def __init__(self, books: Books, supply: Supply, start_again: Backoff) -> None:
        self.kept: dict[Node, dict[Pool, _Keep]] = {}
        self._books = books
        self._supply = supply
        self._start_again = start_again
        # By account: the memory in MiB that it asked for in vain, and until when it asks for no such amount again.
        self._in_vain: dict[str, tuple[int, float]] = {}
        self._timer_set = False

    def found_no_room(self, pool: Pool, node: Node, now: float) -> list[Decision]:
        """The cluster has no room on the node for a slot of the pool: let others give theirs.

        Idle slots that nobody waits for stop, the coldest first. Where these are not enough, busy ones stop after their
        tasks, as far as `Supply.gives_up` allows.
        """
        if now >= pool.retry_at:
            pool.failures += 1
            pool.retry_at = now + self._start_again.after(pool.failures)
        missing = len(pool.waiting) - len(pool.idle) - len(pool.starting)
        if missing <= 0 or not _needs(pool, node):
            return []
        keep = self.kept.get(node, {}).get(pool, _Keep())
        held_mib = self._held_mib(node)
        giving: list[Slot] = []
        if not keep.slots or (now < keep.gave_at + AGAIN_S and missing > keep.slots):
            if self._asks_in_vain(pool, now):
                return []
            giving = self._ask(pool, node, keep, held_mib, now)
        elif held_mib > keep.target_mib:
            # Orders that the cluster had before took what was given.
            giving = _enough(self._givers(pool, node, now), held_mib - keep.target_mib)
        elif now >= keep.gave_at + LEAVING_S and not any(slot.spent for slot in self._slots(node)):
            if not keep.in_doubt:
                giving = self._doubt(pool, node, keep, held_mib)
            if not giving:
                self._note_in_vain(pool, now)
                self.release(pool, node, now)
        if giving:
            keep.gave_at = now
            pool.retry_at = now + AGAIN_S
        return self._let_go(giving, now)

    def _ask(self, pool: Pool, node: Node, keep: _Keep, held_mib: int, now: float) -> list[Slot]:
        """Keep the node for another slot of the pool. Returns the slots that give their memory; none where all that
        may would not be enough."""
        starting_mib = sum(slot.pool.memory_mib for slot in self._slots(node) if slot in slot.pool.starting)
        rest_mib = node.facts.memory_mib - pool.memory_mib * (keep.slots + 1)
        missing_mib = held_mib + starting_mib - rest_mib
        if missing_mib <= 0:
            giving = self._doubt(pool, node, keep, held_mib)
        else:
            giving = _enough(self._givers(pool, node, now), min(missing_mib, pool.memory_mib))
            target_mib = held_mib - _memory_mib(giving)
            if target_mib > rest_mib:
                return []
            keep.target_mib = target_mib
        if giving:
            keep.slots += 1
            self.kept.setdefault(node, {})[pool] = keep
            node.kept_for.add(pool.key)
            self._measure(node)
            self._set_timer(now)
        return giving

    def _doubt(self, pool: Pool, node: Node, keep: _Keep, held_mib: int) -> list[Slot]:
        """The cluster has less room than the cell counts. Nobody knows how much: half of the idle slots stay."""
        keep.in_doubt = True
        idle = list(self._idle(pool, node))
        giving = _enough(iter(idle[: (len(idle) + 1) // 2]), pool.memory_mib)
        keep.target_mib = held_mib - _memory_mib(giving)
        return giving

    def slot_left(self, node: Node, now: float) -> None:
        """A slot on the node is gone: pools that the node is kept for try again."""
        for pool, keep in self.kept.get(node, {}).items():
            keep.gave_at = now
            if not pool.starting:
                pool.retry_at = min(pool.retry_at, now)
                self._books.file(pool, now)

    def slot_started(self, pool: Pool, node: Node, now: float) -> None:
        """A slot of the pool has started on the node."""
        pools = self.kept.get(node, {})
        if pool in pools:
            pools[pool].slots -= 1
        for other, keep in pools.items():
            rest_mib = node.facts.memory_mib - other.memory_mib * keep.slots
            keep.target_mib = min(keep.target_mib + pool.memory_mib, rest_mib)
        if pool in pools and not pools[pool].slots:
            self.release(pool, node, now)

    def release(self, pool: Pool, node: Node, now: float) -> None:
        """The pool needs the node no longer; harmless where the node is not kept for it."""
        pools = self.kept.get(node)
        if pools is None or pools.pop(pool, None) is None:
            return
        node.kept_for.discard(pool.key)
        if not pools:
            del self.kept[node]
            self._books.try_cramped(node, now)

    def look(self, now: float) -> None:
        """The time of the timer has come: release the nodes whose pools need them no longer."""
        self._timer_set = False
        for node, pools in list(self.kept.items()):
            for pool in [pool for pool in pools if not _needs(pool, node)]:
                self.release(pool, node, now)
            if node in self.kept:
                self._measure(node)
                self._books.try_cramped(node, now)
        if self.kept:
            self._set_timer(now)

    def _measure(self, node: Node) -> None:
        """Note what slots of other pools may take: what is left once those that were told to go have left, and those
        that the node is kept for have come. Where the cluster has less room than the cell counts, that is nothing."""
        pools = self.kept[node]
        if any(keep.in_doubt for keep in pools.values()):
            node.beside_mib = 0
            return
        coming_mib = sum(pool.memory_mib * keep.slots for pool, keep in pools.items())
        others_mib = sum(
            slot.pool.memory_mib
            for slot in self._slots(node)
            if not slot.spent and not (slot in slot.pool.starting and slot.pool in pools)
        )
        node.beside_mib = node.facts.memory_mib - coming_mib - others_mib

    def _set_timer(self, now: float) -> None:
        if not self._timer_set:
            self._timer_set = True
            self._books.timers.set(LOOK_EVERY_S, now, (KEPT, ""))

    # -- who gives

    def _slots(self, node: Node) -> list[Slot]:
        return list(self._books.slots_on.get(node, ()))

    def _held_mib(self, node: Node) -> int:
        """The memory of the slots on the node that have started and have not been told to go."""
        return sum(
            slot.pool.memory_mib
            for slot in self._slots(node)
            if not (slot.spent or slot in slot.pool.starting)
        )

    def _givers(self, wanting: Pool, node: Node, now: float) -> Iterator[Slot]:
        """Slots on the node that may give their memory: idle ones first, of these the spare and the coldest first."""
        yield from self._idle(wanting, node)
        for slot in self._others(wanting, node):
            if slot.task_id is not None and not slot.spent and self._supply.gives_up(slot, wanting, now):
                yield slot

    def _idle(self, wanting: Pool, node: Node) -> Iterator[Slot]:
        spared: dict[Pool, int] = {}
        for slot in self._others(wanting, node):
            pool = slot.pool
            if slot not in pool.idle:
                continue
            left = spared.setdefault(pool, len(pool.idle) - (0 if pool.is_spare else len(pool.waiting)))
            if left > 0:
                spared[pool] -= 1
                yield slot

    def _others(self, wanting: Pool, node: Node) -> list[Slot]:
        return sorted((slot for slot in self._slots(node) if slot.pool is not wanting), key=_coldness)

    def _let_go(self, giving: list[Slot], now: float) -> list[Decision]:
        decisions: list[Decision] = []
        for slot in giving:
            if slot.task_id is None:
                decisions.append(self._supply.stop_idle(slot, now))
                continue
            slot.spent = True
            if slot in self._books.spare_on.get(slot.node, ()) and not slot.gives_way:
                tell_to_give_way(slot, decisions, now)
        return decisions

    # -- who asked in vain

    def _asks_in_vain(self, pool: Pool, now: float) -> bool:
        memory_mib, until = self._in_vain.get(pool.key.account, (0, 0.0))
        # Less than half of it may be there. If any smaller amount could be asked for, the node would be emptied in
        # small steps.
        return now < until and 2 * pool.memory_mib > memory_mib

    def _note_in_vain(self, pool: Pool, now: float) -> None:
        self._in_vain = {account: vain for account, vain in self._in_vain.items() if now < vain[1]}
        self._in_vain[pool.key.account] = pool.memory_mib, now + self._books.limits.keep_idle_s


def _needs(pool: Pool, node: Node) -> bool:
    """Return True if a task waits for another slot of the pool, and the node may start one."""
    return not pool.is_spare and node.takes_slots and len(pool.waiting) > len(pool.idle)


def _enough(slots: Iterator[Slot], memory_mib: int) -> list[Slot]:
    """The first slots that hold this much memory together, or all."""
    enough: list[Slot] = []
    for slot in slots:
        enough.append(slot)
        memory_mib -= slot.pool.memory_mib
        if memory_mib <= 0:
            break
    return enough


def _memory_mib(slots: list[Slot]) -> int:
    return sum(slot.pool.memory_mib for slot in slots)


def _coldness(slot: Slot) -> tuple[bool, float]:
    return not slot.pool.is_spare, slot.since
