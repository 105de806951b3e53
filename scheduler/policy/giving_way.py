"""Decides which spare tasks start, and which give way when normal ones need their room or their places. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from scheduler.policy.books import Books
from scheduler.policy.decisions import Decision, GiveWay
from scheduler.policy.limits import SCAN_LIMIT
from scheduler.policy.node import Node
from scheduler.policy.pool import Pool, Slot
from scheduler.policy.timers import Timers

OPENS: Final = "opens"
"""The kind of the timer for a node that lets another spare task start."""


class Gate:
    """Lets spare tasks start on the nodes of a cell, as far as levels are open."""

    def __init__(self, timers: Timers[tuple[str, str]]) -> None:
        self._timers = timers
        self._timer_at: float | None = None

    def admits(self, node: Node, pool: Pool, now: float) -> bool:
        """Return True if the next task of a spare pool may start on the node. Where it may not, a timer is set for the
        time when it may."""
        levels = node.spare_levels
        if levels is None:
            return True
        opens_at = levels.closed_until(node.spare_cpu, pool.cpu_percent, now)
        if opens_at is None:
            return True
        if self._timer_at is None or opens_at < self._timer_at:
            self._timer_at = opens_at
            self._timers.set(opens_at - now, now, (OPENS, ""))
        return False

    def due(self) -> None:
        """The time of a timer has come."""
        self._timer_at = None


def nodes_wanted(books: Books, now: float) -> set[Node]:
    """Nodes on which normal tasks wait beside an idle slot of theirs for room."""
    wanted: set[Node] = set()
    candidates = books.turns.in_turn(now)
    for pool in islice(candidates, SCAN_LIMIT):
        wanted.update(slot.node for slot in islice(pool.idle, SCAN_LIMIT))
    candidates.close()
    return wanted


def make_room(books: Books, decisions: list[Decision], now: float) -> None:
    """Tell spare tasks to give way to normal ones that wait beside an idle slot, where that makes enough room.

    Room that others give already is counted first, so a repeated call kills nobody in vain.
    """
    rooms: dict[Node, _Room] = {}
    candidates = books.turns.in_turn(now)
    for pool in islice(candidates, SCAN_LIMIT):
        tasks = len(pool.waiting)
        for slot in islice(pool.idle, SCAN_LIMIT):
            if not tasks:
                break
            room = rooms.get(slot.node)
            if room is None:
                room = rooms[slot.node] = _Room(slot.node, books.spare_on.get(slot.node, ()))
            if room.make(pool, decisions, now):
                tasks -= 1
    candidates.close()


def give_place(books: Books, wanting: Pool, decisions: list[Decision], now: float) -> None:
    """Tell one spare task to give way, so that its slot's place goes to a normal pool that has none."""
    latest: Slot | None = None
    for node in books.nodes:
        spare = books.spare_on.get(node)
        if not spare or not node.suits(wanting.key):
            continue
        if any(slot.gives_way for slot in spare):
            # That place comes first.
            return
        latest = next(reversed(spare))
    if latest is not None:
        tell_to_give_way(latest, decisions, now)


def give_own_place(books: Books, wanting: Pool, decisions: list[Decision], now: float) -> None:
    """Tell one spare task to give way, as its account may have no other slot for a normal pool."""
    latest: Slot | None = None
    for slots in books.spare_on.values():
        for slot in slots:
            if slot.pool.key.account != wanting.key.account or books.caps.fill(wanting.key, slot.pool.key):
                continue
            if slot.gives_way:
                # That one comes first.
                return
            if latest is None or slot.since >= latest.since:
                latest = slot
    if latest is not None:
        tell_to_give_way(latest, decisions, now)


class _Room:
    """The resources that are free on a node, or will be once slots that were told to give way have stopped."""

    def __init__(self, node: Node, spare: Iterable[Slot]) -> None:
        giving = [slot.pool for slot in spare if slot.gives_way]
        self._cpu_percent = node.free_cpu + sum(pool.cpu_percent for pool in giving)
        self._memory_mib = node.free_memory + sum(pool.memory_mib for pool in giving)
        # The latest gives way first: it loses the least.
        self._others = [slot for slot in spare if not slot.gives_way]

    def make(self, pool: Pool, decisions: list[Decision], now: float) -> bool:
        """Set room aside for one task of the pool; returns whether that is possible."""
        victims: list[Slot] = []
        cpu_percent, memory_mib = self._cpu_percent, self._memory_mib
        others = reversed(self._others)
        while cpu_percent < pool.cpu_percent or memory_mib < pool.memory_mib:
            victim = next(others, None)
            if victim is None:
                return False
            victims.append(victim)
            cpu_percent += victim.pool.cpu_percent
            memory_mib += victim.pool.memory_mib
        for victim in victims:
            self._others.remove(victim)
            tell_to_give_way(victim, decisions, now)
        self._cpu_percent = cpu_percent - pool.cpu_percent
        self._memory_mib = memory_mib - pool.memory_mib
        return True


def tell_to_give_way(slot: Slot, decisions: list[Decision], now: float) -> None:
    """Have the spare task in the slot end, and no other start in its room at once."""
    assert slot.task_id is not None
    slot.gives_way = True
    slot.node.spare_gives_way(slot.pool.cpu_percent, now)
    decisions.append(GiveWay(slot.task_id))
