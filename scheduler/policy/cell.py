"""The cell: which task runs in which slot, and which slots there should be. Events in, decisions out; no I/O, no clock.

A pool holds the slots that are alike. A task waits for whichever slot of its pool is free first (late binding).
Running tasks use their nodes' cores and memory; idle slots use neither, so their number alone is bounded, and the
idlest gives way when another pool needs its place. Where all are busy, a slot that becomes free gives its place to the
account that holds the fewest (`demand`). Accounts take turns (`turns`): one account's flood delays another's task by
one running task's end. A task that had its turn and was too large for what was free may be overtaken for a short while
only; then room is kept for it. Spare tasks run on what is left, and give way when a normal task needs their room.

Every event carries the time. Its method returns the decisions that it calls for, in their order. `wake_at` is when
the cell wants `wake` next, should nothing happen before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from scheduler.backoff import Backoff
from scheduler.errors import SchedulerError
from scheduler.policy.books import STARTS, Books
from scheduler.policy.decisions import (
    Assign,
    Decision,
    DropSlot,
    ExpireRows,
    FailTask,
    GiveUp,
    QueueExpired,
    StartSlot,
    StopSlot,
)
from scheduler.policy.expiry import Expiry
from scheduler.policy.giving_way import give_place, make_room, nodes_wanted
from scheduler.policy.limits import USUAL_WEIGHT, Limits, Retries
from scheduler.policy.node import OWN_NODE, Health, Node, NodeFacts
from scheduler.policy.pool import Pool, Slot
from scheduler.policy.queue import EXPIRES
from scheduler.policy.turns import Turns
from scheduler.pool import PoolKey
from scheduler.task import Isolation

SCAN_LIMIT: Final = 64
"""How many pools, or slots of one pool, one decision looks at when the first ones do not fit into what is free."""
GIVERS_LIMIT: Final = 1024
"""How many pools with idle slots are compared to find the slot that gives its place to another pool."""

ROWS_DUE: Final = "rows"
"""The kind of the timer for the next removal of tasks that are no longer kept."""


class Cell:
    """The policy of one set. `nodes`: its machines; without them, one that has what `limits` say.

    `expiry`: when the store is asked to remove tasks; without it, never.
    """

    def __init__(
        self,
        limits: Limits,
        slot_ids: Iterator[str],
        nodes: Iterable[NodeFacts] | None = None,
        retries: Retries | None = None,
        expiry: Expiry | None = None,
    ) -> None:
        self.limits = limits
        self._retries = retries or Retries()
        self._expiry = expiry
        self._start_again = Backoff(limits.start_backoff_s, limits.start_backoff_max_s)
        self._slot_ids = slot_ids
        own = NodeFacts(OWN_NODE, limits.cpu_percent, limits.memory_mib, limits.max_slots)
        self.books = Books(limits, [own] if nodes is None else nodes)
        self._queue = self.books.queue
        self._turns = self.books.turns
        # Spare tasks that must not be killed, as their callers have seen something of them.
        self._steady: set[str] = set()

    @property
    def wake_at(self) -> float:
        """When `wake` is wanted at the latest; infinite where time alone changes nothing."""
        return self.books.wake_at

    @property
    def waiting(self) -> int:
        """How many tasks wait in their pools."""
        return self._queue.waiting

    def opened(self, now: float) -> list[Decision]:
        """The cell's shell is ready to carry decisions out."""
        return self._expire(now)

    # -- events: tasks

    def check(self, key: PoolKey) -> None:
        """Raise `BadRequest` for what could never run here, `QueueFull` or `AccountLimit` when too many wait."""
        pool = self.books.pools.get(key)
        if pool is None or not pool.at_once:
            self.books.nodes.check(key)
        self._queue.check(key.account)

    def task_arrived(
        self,
        task_id: str,
        key: PoolKey,
        now: float,
        *,
        timeout_s: float | None = None,
        steady: bool = False,
    ) -> list[Decision]:
        """A task wants to run, and gives up after `timeout_s`. Call `check` first.

        `steady`: the task must not be told to give way, though it is spare.
        """
        pool = self.books.pools.get(key) or self.books.pool(key)
        if pool.ahead is not None:
            pool.ahead.arrived(now)
        # The way of most tasks: somebody is idle, nobody is before us.
        elif pool.idle and not self._turns.pools and not pool.is_spare:
            slot = next(reversed(pool.idle))
            node = slot.node
            if pool.cpu_percent <= node.free_cpu and pool.memory_mib <= node.free_memory:
                return [self._assign(slot, task_id, now)]
            if (other := self._roomy_slot(pool)) is not None:
                return [self._assign(other, task_id, now)]
        if steady and pool.is_spare:
            self._steady.add(task_id)
        self._queue.enter(pool, task_id, now, timeout_s=timeout_s)
        self.books.file(pool, now)
        return self._decide(now)

    def task_left(self, task_id: str, now: float) -> list[Decision]:
        """A waiting task gave up (cancelled, its client gone); ids that do not wait are fine."""
        pool = self._queue.leave(task_id)
        if pool is None:
            return []
        self._steady.discard(task_id)
        self.books.file(pool, now)
        return self._decide(now)

    def attempt_lost(
        self,
        task_id: str,
        key: PoolKey,
        attempts: int,
        now: float,
        *,
        disk_full: bool = False,
        caller_waits: bool = False,
        timeout_s: float | None = None,
    ) -> list[Decision]:
        """The platform lost an attempt of the task, its `attempts`th: it pauses and waits again, or is given up.

        `caller_waits`: there is no pause, as a caller waits for it; then `timeout_s` is as in `task_arrived`.
        """
        if attempts >= self._retries.max_attempts:
            return [GiveUp(task_id)]
        if caller_waits:
            return self.task_arrived(task_id, key, now, timeout_s=timeout_s, steady=True)
        backoff = self._retries.full_disk if disk_full else self._retries.usual
        self._queue.pause(self.books.pool(key), task_id, now, backoff.after(attempts))
        return []

    def task_ended(self) -> None:
        """The outcome of a task is stored."""
        if self._expiry is not None:
            self._expiry.task_ended()

    def task_gave_way(self, task_id: str, key: PoolKey, now: float) -> list[Decision]:
        """A spare task was killed as `GiveWay` asked: it waits again, before the others of its pool."""
        pool = self.books.pool(key)
        self._queue.enter(pool, task_id, now, first=True)
        self.books.file(pool, now)
        return self._decide(now)

    # -- events: slots

    def slot_ready(self, slot_id: str, now: float) -> list[Decision]:
        """A slot that was starting has said hello."""
        slot = self.books.slots.get(slot_id)
        if slot is None or slot not in slot.pool.starting:
            return []
        pool = slot.pool
        self.books.started(slot)
        slot.node.has_image(pool.key.image_digest)
        pool.failures = 0
        pool.retry_at = 0.0
        if pool.ahead is not None:
            pool.ahead.started(slot_id, now)
        if not slot.node.is_ready:
            return [self._stop_idle(slot, now), *self._decide(now)]
        slot.unused = True
        self.books.rest(slot, now)
        if self.books.cramped:
            self.books.try_cramped(slot.node, now)
        self.books.file(pool, now)
        return self._decide(now)

    def slot_freed(self, slot_id: str, cpu_us: int, now: float) -> list[Decision]:
        """A task ended and its slot is clean; it used that much CPU time, microseconds."""
        slot = self.books.slots.get(slot_id)
        if slot is None or slot.task_id is None:
            return []
        pool = slot.pool
        pool.cpu_us += cpu_us
        self.books.release(slot)
        if self.books.cramped:
            self.books.try_cramped(slot.node, now)
        taker = self._taker(slot, now) if self.books.demand.wanting else None
        if taker is not None or pool.key.isolation is Isolation.FRESH or not slot.node.is_ready:
            decisions: list[Decision] = [StopSlot(slot_id)]
            node = slot.node
            self.books.forget(slot)
            if taker is not None:
                decisions.append(self._start_slot(taker, node, now))
            self.books.file(pool, now)
            return decisions + self._decide(now, node)
        self.books.rest(slot, now)
        if not self._queue.waiting:
            return []
        self.books.file(pool, now)
        return self._decide(now, slot.node)

    def slot_gone(self, slot_id: str, now: float, fatal: SchedulerError | None = None) -> list[Decision]:
        """A slot could not start or died.

        With `fatal`, no other slot of its pool can start: where it has none left, its waiting tasks fail.
        """
        slot = self.books.slots.get(slot_id)
        if slot is None:
            return []
        pool = slot.pool
        if slot.unused or slot in pool.starting:
            pool.failures += 1
            pool.retry_at = now + self._start_again.after(pool.failures)
        self._lose(slot, now)
        decisions: list[Decision] = []
        if fatal is not None and not pool.slots:
            for task_id in list(pool.waiting):
                self._queue.leave(task_id)
                self._steady.discard(task_id)
                decisions.append(FailTask(task_id, fatal))
            pool.failures, pool.retry_at = 0, 0.0
        self.books.file(pool, now)
        return decisions + self._decide(now, slot.node)

    # -- events: nodes

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
        if node is None or not node.is_ready:
            return []
        self.books.nodes.set_health(node, Health.DRAINING)
        decisions: list[Decision] = []
        for slot in [slot for slot in node.slots if slot in slot.pool.idle]:
            decisions.append(self._stop_idle(slot, now))
        return decisions + self._nodes_changed(now)

    def node_lost(self, node_id: str, now: float) -> list[Decision]:
        """The node does not answer: its slots are gone, and the attempts that ran in them are lost."""
        node = self.books.nodes.get(node_id)
        if node is None:
            return []
        self.books.nodes.set_health(node, Health.LOST)
        decisions: list[Decision] = []
        for slot in list(node.slots):
            self._lose(slot, now)
            decisions.append(DropSlot(slot.id, f"its node {node_id} is lost"))
        return decisions + self._nodes_changed(now)

    # -- events: time

    def wake(self, now: float) -> list[Decision]:
        """Time has passed: what is due is done."""
        decisions: list[Decision] = []
        for timer in self.books.timers.due(now):
            if timer.cancelled:
                continue
            kind, what = timer.what
            if kind is STARTS:
                decisions.append(DropSlot(what, f"it did not start within {self.limits.start_timeout_s:g} s"))
                decisions += self.slot_gone(what, now)
            elif kind is EXPIRES:
                decisions.append(QueueExpired(what))
                decisions += self.task_left(what, now)
            elif kind is ROWS_DUE:
                decisions += self._expire(now)
            elif (key := self._queue.resume(what)) is not None:
                decisions += self.task_arrived(what, key, now)
        for pool in self.books.looks_due(now):
            self._look(pool, decisions, now)
        return decisions + self._decide(now)

    def _expire(self, now: float) -> list[Decision]:
        if self._expiry is None:
            return []
        self.books.timers.set(self._expiry.every_s, now, (ROWS_DUE, ""))
        return [ExpireRows(self._expiry.rounds())]

    def _look(self, pool: Pool, decisions: list[Decision], now: float) -> None:
        """Retire slots that were idle for too long, and forget a pool that has nothing."""
        books, keep_s = self.books, self.limits.keep_idle_s
        if not pool.waiting:
            for slot in list(pool.idle):
                if slot.idle_since + keep_s > now:
                    break
                decisions.append(self._stop_idle(slot, now))
        books.file(pool, now)
        if pool.idle:
            oldest = next(iter(pool.idle))
            books.look_at(pool, max(oldest.idle_since + keep_s, now + keep_s if pool.waiting else now))
        elif pool.is_unused and now >= pool.retry_at and pool not in books.modest:
            books.forget_pool(pool)

    # -- decisions

    def _decide(self, now: float, touched: Node | None = None) -> list[Decision]:
        """Assign what can run now, then start slots. `touched`: the node on which something has become free."""
        books = self.books
        decisions: list[Decision] = []
        if self._turns.pools:
            while (slot := self._next(now, touched)) is not None:
                self._run_next(slot, self._turns, decisions, now)
        if books.spare_turns.pools or books.spare_running:
            self._decide_spare(decisions, now, touched)
        if not self._queue.waiting:
            self._turns.forget()
            books.spare_turns.forget()
        if books.demand.wanting or books.modest:
            self._feed(decisions, now)
        return decisions

    def _decide_spare(self, decisions: list[Decision], now: float, touched: Node | None) -> None:
        """Spare tasks run where no normal one waits for room, and give way where one does."""
        books = self.books
        kept: set[Node] | None = None
        if books.turns.pools:
            if books.spare_running:
                make_room(books, decisions)
            kept = nodes_wanted(books)
        while (slot := self._next_spare(touched, kept)) is not None:
            self._run_next(slot, books.spare_turns, decisions, now)

    def _next_spare(self, touched: Node | None, kept: set[Node] | None) -> Slot | None:
        candidates = self.books.spare_turns.in_turn()
        try:
            for pool in islice(candidates, SCAN_LIMIT):
                slot = self._roomy_slot(pool, touched, kept)
                if slot is not None:
                    return slot
        finally:
            candidates.close()
        return None

    def _run_next(self, slot: Slot, turns: Turns, decisions: list[Decision], now: float) -> None:
        pool = slot.pool
        pool.held_back_at = None
        turns.took(pool)
        task_id, arrived_at = next(iter(pool.waiting.items()))
        self._queue.leave(task_id)
        decisions.append(self._assign(slot, task_id, arrived_at))
        self.books.file(pool, now)

    def _next(self, now: float, touched: Node | None) -> Slot | None:
        """The idle slot of the next account's first pool that fits into what is free."""
        only = self.books.nodes.only
        if only is not None and only.free_cpu <= 0:
            return None
        first = self._turns.first()
        if first is None:
            return None
        slot = next(reversed(first.idle))
        if slot.node.has_room(first):
            return slot
        # Smaller tasks have run past some pools for long enough: what becomes free on these nodes is kept for them.
        kept: set[Node] | None = None
        candidates = self._turns.in_turn()
        try:
            for pool in islice(candidates, SCAN_LIMIT):
                if (roomy := self._roomy_slot(pool, touched, kept)) is not None:
                    return roomy
                if pool.held_back_at is None:
                    pool.held_back_at = now
                elif now - pool.held_back_at >= self.limits.patience_s:
                    if only is not None:
                        return None
                    kept = kept or set()
                    kept.add(max((slot.node for slot in islice(pool.idle, SCAN_LIMIT)), key=_free_cpu))
        finally:
            candidates.close()
        return None

    def _roomy_slot(
        self, pool: Pool, touched: Node | None = None, kept: set[Node] | None = None
    ) -> Slot | None:
        """The pool's warmest idle slot on a node that has room for a task; `kept` are nodes to leave alone."""
        warmest = next(reversed(pool.idle))
        if warmest.node.has_room(pool) and not (kept and warmest.node in kept):
            return warmest
        if self.books.nodes.only is not None:
            return None
        full = {warmest.node} | kept if kept else {warmest.node}
        for slot in islice(reversed(pool.idle), SCAN_LIMIT):
            if slot.node not in full:
                if slot.node.has_room(pool):
                    return slot
                full.add(slot.node)
        if touched is not None and touched not in full and touched.has_room(pool):
            return next((slot for slot in touched.slots if slot in pool.idle), None)
        return None

    def _assign(self, slot: Slot, task_id: str, arrived_at: float) -> Assign:
        may_give_way = slot.pool.is_spare and task_id not in self._steady
        unused = self.books.take(slot, task_id, may_give_way=may_give_way)
        # Cold is a task that waited for its slot's start, not one that found a new slot ready.
        return Assign(task_id, slot.id, unused and slot.idle_since >= arrived_at)

    def _feed(self, decisions: list[Decision], now: float) -> None:
        """Start slots for pools that want them, on places that are free or that idle slots of other pools give."""
        books = self.books
        nobody_gives = not books.nodes.open and not books.givers and not books.spare_running
        while not nobody_gives and (pool := books.demand.neediest()) is not None:
            node = books.nodes.place(pool)
            if node is None:
                victim = self._coldest_idle(pool)
                if victim is None:
                    if books.spare_running:
                        give_place(books, pool, decisions)
                    if not self._others_find_places(pool):
                        break
                    continue
                node = victim.node
                decisions.append(self._stop_idle(victim, now))
            decisions.append(self._start_slot(pool, node, now))
        # For tasks that may come, and for spare ones, nobody else's slot goes.
        for pool in list(islice(books.modest, SCAN_LIMIT)):
            while pool in books.modest and (node := books.nodes.place(pool)) is not None:
                decisions.append(self._start_slot(pool, node, now))

    def _others_find_places(self, pool: Pool) -> bool:
        """The pool finds no place. Where that is for what its nodes are, others are not held up by it."""
        books = self.books
        if not books.nodes.open:
            return False
        pool.wants = False
        books.demand.drop(pool)
        books.cramped[pool] = None
        return True

    def _start_slot(self, pool: Pool, node: Node, now: float) -> StartSlot:
        slot_id = next(self._slot_ids)
        self.books.add(slot_id, pool, node, now)
        return StartSlot(slot_id, pool.key, node.facts.id)

    def _taker(self, slot: Slot, now: float) -> Pool | None:
        """The pool that gets the place of a slot that just became free; None: its own pool keeps it.

        The taker's account holds less by two slots at least, counted by weight, so that no place goes to and fro; or
        nothing, and has waited for long enough. Pools of one account are compared likewise.
        """
        demand, pool = self.books.demand, slot.pool
        if slot.node in self.books.nodes.open:
            return None
        one_for_all = self.books.nodes.only is not None and slot.node.is_ready
        taker = demand.neediest(beside=pool, node=None if one_for_all else slot.node)
        if taker is None or pool.is_spare:
            return taker
        giver, wanting = pool.key.account, taker.key.account
        if giver == wanting:
            # What has just become free is in none of the pool's books.
            gives_up = pool.slots > taker.slots
        else:
            weights = self.limits.account_weights
            left = (demand.held(giver) - 1) * weights.get(wanting, USUAL_WEIGHT)
            gives_up = left >= (demand.held(wanting) + 1) * weights.get(giver, USUAL_WEIGHT)
        if gives_up:
            return taker
        has = taker.slots if giver == wanting else demand.held(wanting)
        impatient = not has and now - next(iter(taker.waiting.values())) > self.limits.patience_s
        return taker if impatient else None

    def _coldest_idle(self, wanting: Pool) -> Slot | None:
        """The slot, longest idle, that gives its place to a pool, on a node that suits it."""
        books, best = self.books, None
        alone = books.nodes.only is not None
        for pool in list(islice(books.givers, GIVERS_LIMIT)):
            if not pool.idle or (len(pool.waiting) >= len(pool.idle) and not pool.is_spare):
                del books.givers[pool]
            elif pool is not wanting:
                for slot in islice(pool.idle, SCAN_LIMIT):
                    if alone or slot.node.suits(wanting.key):
                        if best is None or slot.idle_since < best.idle_since:
                            best = slot
                        break
        return best

    def _stop_idle(self, slot: Slot, now: float) -> StopSlot:
        self._lose(slot, now)
        self.books.file(slot.pool, now)
        return StopSlot(slot.id)

    def _lose(self, slot: Slot, now: float) -> None:
        """The slot is gone; its place is free."""
        self.books.forget(slot)
        if self.books.cramped:
            self.books.try_cramped(slot.node, now)

    def _nodes_changed(self, now: float) -> list[Decision]:
        self.books.nodes_changed(now)
        return self._decide(now)


def _free_cpu(node: Node) -> int:
    return node.free_cpu
