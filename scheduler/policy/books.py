"""The cell's records of pools, slots and nodes, and the indices by which it decides. Pure.

Only these methods change slots and pools, so that every count agrees with every other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import islice
from typing import Final

from scheduler.policy.caps import Caps
from scheduler.policy.demand import Demand
from scheduler.policy.idle_times import IdleTimes, Remembered
from scheduler.policy.keep_alive import foresee
from scheduler.policy.limits import KeepAlive, Limits
from scheduler.policy.node import Node, NodeFacts, Nodes
from scheduler.policy.pool import NEVER, Pool, Slot
from scheduler.policy.pool_bounds import PoolBounds
from scheduler.policy.queue import Queue
from scheduler.policy.shares import SMOOTHING
from scheduler.policy.tenancy import Parties
from scheduler.policy.timers import Timers
from scheduler.policy.turns import Turns
from scheduler.pool import PoolKey
from scheduler.task import Priority

STARTS: Final = "starts"
"""The kind of a timer for a slot that should have started by then."""
RUNS: Final = "runs"
"""The kind of a timer for a slot whose task may run until then."""
CRAMPED_TRIED: Final = 64
"""How many pools without a place are considered when a place on one node becomes free."""


class Books:
    """Pools by key, slots by id, nodes, the queue; and the pools by what they need. Times are the cell's clock."""

    def __init__(self, limits: Limits, nodes: Iterable[NodeFacts]) -> None:
        self.limits = limits
        self._keep_idle_s = limits.keep_idle_s
        self._learns = limits.keep_alive is KeepAlive.LEARNT
        # What is known of pools that are forgotten otherwise.
        self.remembered = Remembered()
        # Pools that have nothing, and in which a slot will be started ahead of need.
        self.asleep: dict[Pool, None] = {}
        # Which accounts share nodes; None where all do.
        self.parties = Parties(limits.tenancy, limits.account_tenancy) if limits.some_need_own_nodes else None
        self.nodes = Nodes(nodes, self.parties)
        self.timers: Timers[tuple[str, str]] = Timers()
        self.pools: dict[PoolKey, Pool] = {}
        self.pool_bounds = PoolBounds(limits)
        self.slots: dict[str, Slot] = {}
        # The slots of each node that has any; and those in which spare tasks run, the latest last.
        self.slots_on: dict[Node, dict[Slot, None]] = {}
        self.spare_on: dict[Node, dict[Slot, None]] = {}
        self.queue = Queue(limits, self.timers)
        # Pools that have both a waiting task and an idle slot: of normal tasks, and of spare ones.
        self.turns = Turns(limits.account_weights)
        self.spare_turns = Turns(limits.account_weights)
        # Pools whose waiting tasks want more slots, which they may have now; those that take only places that are
        # free (for spare tasks, or for tasks to come); and those that no node has a place for.
        self.demand = Demand(limits.account_weights)
        self.modest: dict[Pool, None] = {}
        self.cramped: dict[Pool, None] = {}
        self.caps = Caps(limits)
        # Pools that have become cramped, where accounts have nodes of their own: they may claim one.
        self.homeless: dict[Pool, None] = {}
        # Pools that may have an idle slot to give: looked at again when one is needed.
        self.givers: dict[Pool, None] = {}
        # A heap of (time, serial, pool): pools in which time alone changes something. A pool's entry counts where it
        # is the pool's `look_at`.
        self._looks: list[tuple[float, int, Pool]] = []
        self._serial = 0
        # How long a slot may be there before its cluster ends it, in seconds; None where nothing does.
        self.slot_life_s: float | None = None
        # How many spare tasks run, and how often one was told to give way.
        self.spare_running = 0
        self.gave_way = 0

    # -- pools

    def pool(self, key: PoolKey, now: float) -> Pool:
        """The pool of this key, a new one where there was none."""
        pool = self.pools.get(key)
        if pool is None:
            turns = self.spare_turns if key.priority is Priority.SPARE else self.turns
            pool = self.pools[key] = Pool(key, turns.shares.account(key.account))
            if self._learns and pool.ahead is None and not pool.is_spare:
                pool.idle_times = self.remembered.take(key) or IdleTimes(self._keep_idle_s, pool.memory_mib)
            self._size(pool)
            self.pool_bounds.added(key.account, now)
        return pool

    def _size(self, pool: Pool) -> None:
        pool.at_once = self.nodes.at_once(pool.key)
        pool.most = max(1, pool.at_once)
        nodes, memory_worth = self.nodes, 0
        if nodes.memory_mib:
            memory_worth = pool.memory_mib * nodes.cpu_percent // nodes.memory_mib
        pool.charge_percent = max(pool.cpu_percent, memory_worth)
        if pool.ahead is not None:
            pool.most += self.limits.fresh_ahead
        pool.most = int(min(pool.most, self.caps.most(pool.key)))

    def forget_pool(self, pool: Pool) -> None:
        """The pool has neither slots nor waiting tasks, and is not about to have any."""
        del self.pools[pool.key]
        pool.account.shares.forget_pool(pool.account)
        self.pool_bounds.removed(pool.key.account)
        self.givers.pop(pool, None)
        self.asleep.pop(pool, None)
        self.caps.drop(pool)
        if pool.idle_times is not None:
            self.remembered.keep(pool.key, pool.idle_times)
        pool.look_at = NEVER

    def nodes_changed(self, now: float) -> None:
        """Nodes joined, left or drain: count again how many slots each pool may have."""
        self.cramped.clear()
        for pool in self.pools.values():
            self._size(pool)
            self.file(pool, now)

    def file(self, pool: Pool, now: float) -> None:
        """Enter the pool into the indices that its present state belongs to, and take it out of the others."""
        waiting, idle = len(pool.waiting), len(pool.idle)
        if waiting and idle:
            if not pool.takes_turns:
                pool.takes_turns = True
                # If it finds no room, nobody is asked about that again until some is free; it waits for it from now on.
                pool.held_back_at = now
                self._turns_of(pool).add(pool, now)
        elif pool.takes_turns:
            pool.takes_turns = False
            pool.held_back_at = pool.kept_on = None
            self._turns_of(pool).discard(pool)
        if idle > waiting:
            self.givers[pool] = None
            if self.caps.held_back:
                for other in self.caps.may_take(pool):
                    self.file(other, now)
        wants = eager = may = False
        if pool.slots < pool.most:
            coming = idle + len(pool.starting)
            wants = waiting > coming
            if pool.ahead is not None and not wants:
                eager = waiting + self._ahead(pool, now) > coming
            elif pool.foreseen and not wants:
                eager = True
            if wants or eager:
                if now < pool.retry_at:
                    self.look_at(pool, pool.retry_at)
                else:
                    # After a failure one slot goes ahead of the others.
                    may = not (pool.failures and pool.starting)
        if self.caps.held_back and self.caps.holds_back(pool):
            may = False
            if not (wants or eager):
                self.caps.drop(pool)
        if may and wants and not pool.is_spare and pool not in self.cramped:
            if not pool.wants:
                pool.wants = True
                self.demand.want(pool)
        elif pool.wants:
            pool.wants = False
            self.demand.drop(pool)
        if may and (eager or pool.is_spare):
            self.modest.setdefault(pool)
        elif self.modest:
            self.modest.pop(pool, None)
        if self.cramped and not wants:
            self.cramped.pop(pool, None)
        if self.asleep and not pool.is_unused:
            self.asleep.pop(pool, None)
        if not pool.slots and not waiting and pool.is_unused and pool not in self.asleep:
            until = 0.0 if pool.ahead is None else pool.ahead.until(self.limits.keep_idle_s)
            self.look_at(pool, max(now, pool.retry_at, until))

    def _turns_of(self, pool: Pool) -> Turns:
        return self.spare_turns if pool.is_spare else self.turns

    def look_at(self, pool: Pool, at: float) -> None:
        """Time changes something in the pool at `at`."""
        if at < pool.look_at:
            pool.look_at = at
            self._serial += 1
            heapq.heappush(self._looks, (at, self._serial, pool))

    def looks_due(self, now: float) -> list[Pool]:
        """Pools in which time has changed something; each must be filed, and looked at again if need be."""
        due: list[Pool] = []
        looks = self._looks
        while looks and looks[0][0] <= now:
            at, _, pool = heapq.heappop(looks)
            if pool.look_at == at:
                pool.look_at = NEVER
                due.append(pool)
        return due

    @property
    def wake_at(self) -> float:
        """When the first timer or look is due."""
        looks = self._looks
        if looks and looks[0][0] < self.timers.next_at:
            return looks[0][0]
        return self.timers.next_at

    def _ahead(self, pool: Pool, now: float) -> int:
        """How many slots the pool should have ready for tasks that may come."""
        assert pool.ahead is not None
        return pool.ahead.wanted(now, self.limits.keep_idle_s, self.limits.fresh_ahead)

    # -- slots

    def add(self, slot_id: str, pool: Pool, node: Node, now: float) -> Slot:
        """A slot begins to start."""
        slot = self.slots[slot_id] = Slot(slot_id, pool, node, now)
        if pool.foreseen:
            foresee(slot, now)
        pool.starting.add(slot)
        pool.slots += 1
        self.slots_on.setdefault(node, {})[slot] = None
        self.nodes.slot_added(node)
        node.starting_cpu += pool.cpu_percent
        if node.kept_for and pool.key not in node.kept_for:
            node.beside_mib -= pool.memory_mib
        if node.tenure is not None:
            node.tenure.slot_added(pool.key.account, now)
        slot.timer = self.timers.set(self.limits.start_timeout_s, now, (STARTS, slot_id))
        if pool.ahead is not None:
            pool.ahead.starting(slot_id, now)
        self.demand.slot_added(pool)
        self.caps.slot_added(pool.key)
        self.file(pool, now)
        return slot

    def started(self, slot: Slot) -> None:
        """A slot starts no longer, however that went."""
        pool = slot.pool
        if slot in pool.starting:
            pool.starting.discard(slot)
            slot.node.starting_cpu -= pool.cpu_percent
            if self.slot_life_s is not None:
                slot.ends_at = slot.since + self.slot_life_s
            self._stop_timer(slot)

    def rest(self, slot: Slot, now: float) -> None:
        """A slot is idle from now on."""
        pool, times = slot.pool, slot.pool.idle_times
        slot.since = now
        if not slot.foreseen:
            slot.rested_at = now
        pool.idle[slot] = None
        self.givers[pool] = None
        at = now + (self._keep_idle_s if times is None else times.first_s)
        if at < pool.look_at:
            self.look_at(pool, at)

    def take(self, slot: Slot, task_id: str, now: float) -> None:
        """A task runs in an idle slot from now on."""
        pool, node = slot.pool, slot.node
        account = pool.account
        if account.shares.waiting:
            account.settle(now)
        slot.charge_percent = pool.charge_percent
        account.held += slot.charge_percent
        if pool.idle_times is not None and (slot.foreseen or not slot.unused):
            slot.foreseen = False
            pool.idle_times.ended(now - slot.rested_at)
        del pool.idle[slot]
        pool.running.add(slot)
        slot.task_id = task_id
        account.served += 1
        slot.since = now
        slot.unused = False
        node.free_cpu -= pool.cpu_percent
        node.free_memory -= pool.memory_mib
        if pool.is_spare:
            self.spare_on.setdefault(node, {})[slot] = None
            self.spare_running += 1
            node.spare_cpu += pool.cpu_percent

    def limit(self, slot: Slot, limit_s: float, now: float) -> None:
        """The program of the slot's task may run for that long from now on."""
        slot.timer = self.timers.set(limit_s, now, (RUNS, slot.id))

    def release(self, slot: Slot, now: float, cpu_us: int = 0) -> None:
        """The slot's task has ended, having used that much CPU time."""
        pool, node = slot.pool, slot.node
        account, run_s = pool.account, now - slot.since
        account.task_s += SMOOTHING * (run_s - account.task_s) if account.task_s else run_s
        if account.shares.waiting:
            account.settle(now)
            account.task_ran(slot.charge_percent, run_s, cpu_us)
        account.held -= slot.charge_percent
        turns = self._turns_of(pool)
        if turns.pools:
            turns.released(account, now)
        if slot.timer is not None:
            self._stop_timer(slot)
        pool.running.discard(slot)
        slot.task_id = None
        node.free_cpu += pool.cpu_percent
        node.free_memory += pool.memory_mib
        if pool.is_spare:
            _drop(self.spare_on, slot)
            self.spare_running -= 1
            if slot.gives_way:
                slot.gives_way = False
                self.gave_way += 1
            else:
                node.spare_ended(pool.cpu_percent)

    def hand_on(self, slot: Slot, task_id: str, now: float, cpu_us: int) -> None:
        """The slot's task has ended and another of its pool runs in it: nothing becomes free, nothing is taken."""
        pool = slot.pool
        account, run_s = pool.account, now - slot.since
        account.task_s += SMOOTHING * (run_s - account.task_s) if account.task_s else run_s
        account.task_ran(slot.charge_percent, run_s, cpu_us)
        slot.since = now
        if slot.timer is not None:
            self._stop_timer(slot)
        slot.task_id = task_id
        account.served += 1

    def forget(self, slot: Slot, now: float) -> None:
        """The slot is gone, whatever it did; its pool must be filed afterwards."""
        pool = slot.pool
        if slot.task_id is not None:
            self.release(slot, now)
        if pool.idle_times is not None and (slot.foreseen or slot in pool.idle):
            pool.idle_times.left(slot.rested_at)
            if not pool.idle_times.is_usual:
                self.look_at(pool, now + pool.idle_times.resolution_s)
        self.started(slot)
        pool.idle.pop(slot, None)
        del self.slots[slot.id]
        _drop(self.slots_on, slot)
        pool.slots -= 1
        self.nodes.slot_removed(slot.node)
        if self.parties is not None:
            assert slot.node.tenure is not None
            self.parties.slot_ended(slot.node.tenure, slot.id)
        self.demand.slot_removed(pool)
        if pool.ahead is not None:
            pool.ahead.gone(slot.id)
        for other in self.caps.slot_removed(pool.key):
            self.file(other, now)

    @staticmethod
    def _stop_timer(slot: Slot) -> None:
        timer, slot.timer = slot.timer, None
        if timer is not None:
            timer.cancel()

    def forget_tenure(self, node_id: str) -> None:
        """The node is away: forget whose it was, unless something of a slot may be left there."""
        if self.parties is not None:
            self.parties.forget(node_id)

    def left(self, pool: Pool, now: float) -> None:
        """A task of the pool has left: the idle slot that it waited beside may give its place to a cramped pool."""
        self.file(pool, now)
        if self.cramped and len(pool.idle) > len(pool.waiting):
            for node in dict.fromkeys(slot.node for slot in islice(pool.idle, CRAMPED_TRIED)):
                self.try_cramped(node, now)

    def try_cramped(self, node: Node, now: float) -> None:
        """A place on the node is free: pools that found none may want it."""
        for pool in list(islice(self.cramped, CRAMPED_TRIED)):
            del self.cramped[pool]
            if node.suits(pool.key):
                self.file(pool, now)
            else:
                # Others are considered next time.
                self.cramped[pool] = None

    # -- facts

    def slots_by_state(self) -> dict[str, int]:
        """How many slots are `idle`, `starting` and `running`."""
        counts = {"idle": 0, "starting": 0, "running": 0}
        for pool in self.pools.values():
            counts["idle"] += len(pool.idle)
            counts["starting"] += len(pool.starting)
            counts["running"] += len(pool.running)
        return counts


def _drop(by_node: dict[Node, dict[Slot, None]], slot: Slot) -> None:
    slots = by_node[slot.node]
    del slots[slot]
    if not slots:
        del by_node[slot.node]
