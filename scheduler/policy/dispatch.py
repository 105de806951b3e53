"""Which task runs in which slot, and which slots there should be: events in, decisions out.

A pool holds the slots that are alike. A task waits for whichever slot of its pool is free first (late binding).
Running tasks share the set's cores and memory; idle slots cost neither, so their number alone is bounded, and the
idlest gives way when another pool needs room. Where all are busy, a slot that becomes free gives its place to the
account that holds the fewest (`demand`). Accounts take turns: one account's flood delays another's task by one running
task's end. A task that had its turn and was too large for what was free may be overtaken for a short
while only; then room is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from scheduler.backoff import Backoff
from scheduler.errors import AccountLimit, BadRequest, QueueFull
from scheduler.policy.decisions import Assign, Decision, FailTask, StartSlot, StopSlot
from scheduler.policy.demand import Demand
from scheduler.policy.pool import Pool
from scheduler.pool import PoolKey
from scheduler.task import Isolation

SCAN_LIMIT: Final = 64
"""How many pools one decision looks at when the first ones do not fit into what is free."""


class Limits(msgspec.Struct, frozen=True):
    """What the set may use. Times are seconds.

    `patience_s`: how long a task that is too large for the free room may be overtaken, and how long a pool without
    any slot waits until one of a busy pool gives way. `fresh_ahead`: the most slots that a fresh pool has ready.
    """

    cpu_percent: int = 200
    memory_mib: int = 8192
    max_slots: int = 32
    max_waiting: int = 100_000
    max_waiting_account: int = 20_000
    keep_idle_s: float = 300.0
    start_backoff_s: float = 0.5
    start_backoff_max_s: float = 30.0
    patience_s: float = 1.0
    fresh_ahead: int = 8


class Dispatch:
    """The dispatching policy of one set. Every method returns the decisions that its event calls for, in order."""

    def __init__(self, limits: Limits, slot_ids: Iterator[str]) -> None:
        self.limits = limits
        self.free_cpu = limits.cpu_percent
        self.free_memory = limits.memory_mib
        self.waiting = 0
        self._start_again = Backoff(limits.start_backoff_s, limits.start_backoff_max_s)
        self._waiting_of: dict[str, int] = {}
        self._slot_ids = slot_ids
        self._pools: dict[PoolKey, Pool] = {}
        self._pool_of_slot: dict[str, Pool] = {}
        self._pool_of_task: dict[str, Pool] = {}
        # Accounts in turn, each with its pools that have both a waiting task and an idle slot.
        self._runnable: dict[str, dict[Pool, None]] = {}
        # Pools whose waiting tasks want more slots, which they may have now; fresh pools that want them ready for tasks
        # to come; and those that back off.
        self._demand = Demand()
        self._eager: dict[Pool, None] = {}
        self._resting: dict[Pool, None] = {}
        # Pools that may have an idle slot to spare: looked at again when one is needed.
        self._spare: dict[Pool, None] = {}
        self._unused: set[str] = set()

    # -- events

    def check(self, key: PoolKey) -> None:
        """Raise `BadRequest` for what could never run here, `QueueFull` or `AccountLimit` when too many wait."""
        if key.resources.cpu_percent > self.limits.cpu_percent:
            raise BadRequest(
                f"cpu: at most {self.limits.cpu_percent / 100:g}, which is all that this set has",
                field="cpu",
            )
        if key.resources.memory_mib > self.limits.memory_mib:
            raise BadRequest(
                f"memory_mib: this set runs tasks of {self.limits.memory_mib} MiB at most", field="memory_mib"
            )
        if self.waiting >= self.limits.max_waiting:
            raise QueueFull(f"no more tasks may wait in this set (waiting: {self.waiting}); try again later")
        if self._waiting_of.get(key.account, 0) >= self.limits.max_waiting_account:
            raise AccountLimit(
                f"no more tasks of this account may wait (waiting: {self.limits.max_waiting_account}); try again later"
            )

    def task_arrived(self, task_id: str, key: PoolKey, now: float) -> list[Decision]:
        """A task wants to run. Call `check` first."""
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(key, self._at_once(key))
        if pool.ahead is not None:
            pool.ahead.arrived(now)
        # The way of most tasks: somebody is idle, nobody is before us.
        elif pool.idle and not self._runnable and self._fits(pool):
            return [self._assign(pool, task_id, now)]
        pool.waiting[task_id] = now
        self._pool_of_task[task_id] = pool
        self.waiting += 1
        self._waiting_of[key.account] = self._waiting_of.get(key.account, 0) + 1
        self._file(pool, now)
        return self._decide(now)

    def task_left(self, task_id: str, now: float) -> list[Decision]:
        """A waiting task gave up (cancelled, timed out, its client gone); unknown ids are fine."""
        pool = self._pool_of_task.get(task_id)
        if pool is None:
            return []
        self._unqueue(pool, task_id)
        self._file(pool, now)
        return self._decide(now)

    def slot_ready(self, slot_id: str, now: float) -> list[Decision]:
        """A slot that was starting has said hello."""
        pool = self._pool_of_slot.get(slot_id)
        if pool is None or slot_id not in pool.starting:
            return []
        pool.starting.discard(slot_id)
        pool.failures = 0
        pool.retry_at = 0.0
        if pool.ahead is not None:
            pool.ahead.started(slot_id, now)
        self._unused.add(slot_id)
        self._rest_idle(pool, slot_id, now)
        self._file(pool, now)
        return self._decide(now)

    def slot_freed(self, slot_id: str, now: float) -> list[Decision]:
        """A task ended and its slot is clean."""
        pool = self._pool_of_slot.get(slot_id)
        if pool is None or slot_id not in pool.running:
            return []
        self._release(pool, slot_id)
        taker = self._taker(pool, now)
        if pool.key.isolation is Isolation.FRESH or taker is not None:
            decisions: list[Decision] = [StopSlot(slot_id)]
            self._forget_slot(pool, slot_id)
            if taker is not None:
                decisions.append(self._start_slot(taker, now))
            self._file(pool, now)
            return decisions + self._decide(now)
        self._rest_idle(pool, slot_id, now)
        if not self.waiting:
            return []
        self._file(pool, now)
        return self._decide(now)

    def slot_gone(self, slot_id: str, now: float, fatal: Exception | None = None) -> list[Decision]:
        """A slot could not start or died.

        With `fatal`, no other slot of its pool can start: where it has none left, its waiting tasks fail.
        """
        pool = self._pool_of_slot.get(slot_id)
        if pool is None:
            return []
        if slot_id in pool.running:
            self._release(pool, slot_id)
        decisions: list[Decision] = []
        if slot_id in pool.starting or slot_id in self._unused:
            pool.failures += 1
            pool.retry_at = now + self._start_again.after(pool.failures)
        pool.idle.pop(slot_id, None)
        pool.starting.discard(slot_id)
        self._forget_slot(pool, slot_id)
        if fatal is not None and not pool.slots:
            for task_id in list(pool.waiting):
                self._unqueue(pool, task_id)
                decisions.append(FailTask(task_id, fatal))
            pool.failures, pool.retry_at = 0, 0.0
        self._file(pool, now)
        return decisions + self._decide(now)

    def tick(self, now: float) -> list[Decision]:
        """Time passed: retire slots that were idle too long, try again what had to back off."""
        decisions: list[Decision] = []
        for pool in list(self._resting):
            self._file(pool, now)
        for key, pool in list(self._pools.items()):
            if not pool.waiting:
                for slot_id, since in list(pool.idle.items()):
                    if now - since < self.limits.keep_idle_s:
                        break
                    decisions.append(self._stop_idle(pool, slot_id, now))
                self._file(pool, now)
                if not pool.slots and now >= pool.retry_at and pool not in self._eager:
                    del self._pools[key]
                    self._spare.pop(pool, None)
        return decisions + self._decide(now)

    # -- facts

    def facts(self, now: float) -> dict[str, float]:
        """What the set has and how much of it running tasks use: cores, MiB, slots; and its queue."""
        first = [next(iter(pool.waiting.values())) for pool in self._pools.values() if pool.waiting]
        limits = self.limits
        return {
            "tasks_waiting": self.waiting,
            "oldest_wait_seconds": round(now - min(first, default=now), 3),
            "cores": limits.cpu_percent / 100,
            "cores_busy": (limits.cpu_percent - self.free_cpu) / 100,
            "memory_mib": limits.memory_mib,
            "memory_busy_mib": limits.memory_mib - self.free_memory,
            "slots_max": limits.max_slots,
            **{f"slots_{state}": count for state, count in self.slots_by_state().items()},
        }

    def slots_by_state(self) -> dict[str, int]:
        """How many slots are `idle`, `starting` and `running`."""
        counts = {"idle": 0, "starting": 0, "running": 0}
        for pool in self._pools.values():
            counts["idle"] += len(pool.idle)
            counts["starting"] += len(pool.starting)
            counts["running"] += len(pool.running)
        return counts

    def pool_of(self, slot_id: str) -> PoolKey | None:
        """The pool of a slot that is there."""
        pool = self._pool_of_slot.get(slot_id)
        return None if pool is None else pool.key

    def knows(self, key: PoolKey) -> bool:
        """Whether the pool has slots or waiting tasks, or had them a moment ago."""
        return key in self._pools

    @property
    def pools(self) -> int:
        """How many pools are known."""
        return len(self._pools)

    # -- decisions

    def _decide(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        while self._runnable and self.free_cpu > 0:
            pool = self._next_runnable(now)
            if pool is None:
                break
            task_id, arrived_at = next(iter(pool.waiting.items()))
            self._unqueue(pool, task_id)
            decisions.append(self._assign(pool, task_id, arrived_at))
            self._file(pool, now)
        if self._demand or self._eager:
            self._feed(decisions, now)
        return decisions

    def _next_runnable(self, now: float) -> Pool | None:
        """The next account's first pool that fits into what is free; that account goes to the end of the line."""
        scanned = 0
        for account, pools in self._runnable.items():
            for pool in pools:
                scanned += 1
                if self._fits(pool):
                    pool.held_back_at = None
                    del self._runnable[account]
                    self._runnable[account] = pools
                    # The account's own pools take turns, too.
                    del pools[pool]
                    pools[pool] = None
                    return pool
                if pool.held_back_at is None:
                    pool.held_back_at = now
                elif now - pool.held_back_at >= self.limits.patience_s:
                    # Smaller tasks have run past it for long enough: what becomes free is kept for it.
                    return None
                if scanned >= SCAN_LIMIT:
                    return None
        return None

    def _feed(self, decisions: list[Decision], now: float) -> None:
        """Start slots for pools that want them, in the room there is or that idle slots of other pools can give."""
        while (pool := self._demand.neediest()) is not None:
            if self._is_full:
                victim = self._coldest_idle(pool)
                if victim is None:
                    return
                decisions.append(self._stop_idle(*victim, now))
            decisions.append(self._start_slot(pool, now))
        # For tasks that may come nobody else's slot goes.
        for pool in list(islice(self._eager, SCAN_LIMIT)):
            while pool in self._eager and not self._is_full:
                decisions.append(self._start_slot(pool, now))

    def _start_slot(self, pool: Pool, now: float) -> StartSlot:
        slot_id = next(self._slot_ids)
        pool.starting.add(slot_id)
        if pool.ahead is not None:
            pool.ahead.starting(slot_id, now)
        self._pool_of_slot[slot_id] = pool
        self._demand.slot_added(pool)
        self._file(pool, now)
        return StartSlot(slot_id, pool.key)

    def _taker(self, pool: Pool, now: float) -> Pool | None:
        """The pool that gets the place of a slot of `pool` that just became free; None: `pool` keeps it.

        The taker's account holds less by two slots at least, so that no place goes to and fro; or nothing, and has
        waited for long enough. Pools of one account are compared likewise.
        """
        if not self._demand or not self._is_full:
            return None
        taker = self._demand.neediest(beside=pool)
        if taker is None:
            return None
        giver, wanting = pool.key.account, taker.key.account
        if giver == wanting:
            more, has = pool.slots, taker.slots
        else:
            more, has = self._demand.held(giver), self._demand.held(wanting)
        # What has just become free is in none of the pool's books.
        more += giver == wanting
        impatient = not has and now - next(iter(taker.waiting.values())) > self.limits.patience_s
        return taker if more > has + 1 or impatient else None

    def _coldest_idle(self, wanting: Pool) -> tuple[Pool, str] | None:
        best: tuple[float, Pool, str] | None = None
        for pool in list(self._spare):
            if len(pool.waiting) >= len(pool.idle):
                del self._spare[pool]
            elif pool is not wanting:
                slot_id, since = next(iter(pool.idle.items()))
                if best is None or since < best[0]:
                    best = (since, pool, slot_id)
        return best and (best[1], best[2])

    # -- bookkeeping

    def _at_once(self, key: PoolKey) -> int:
        """How many tasks of the pool could run at the same time in an empty set."""
        wanted = key.resources
        return max(
            1, min(self.limits.cpu_percent // wanted.cpu_percent, self.limits.memory_mib // wanted.memory_mib)
        )

    @property
    def _is_full(self) -> bool:
        return len(self._pool_of_slot) >= self.limits.max_slots

    def _fits(self, pool: Pool) -> bool:
        return pool.cpu_percent <= self.free_cpu and pool.memory_mib <= self.free_memory

    def _most(self, pool: Pool) -> int:
        """How many slots the pool may have."""
        return pool.at_once if pool.ahead is None else pool.at_once + self.limits.fresh_ahead

    def _ahead(self, pool: Pool, now: float) -> int:
        """How many slots the pool should have ready for tasks that may come."""
        if pool.ahead is None:
            return 0
        return pool.ahead.wanted(now, self.limits.keep_idle_s, self.limits.fresh_ahead)

    def _assign(self, pool: Pool, task_id: str, arrived_at: float) -> Assign:
        slot_id, idle_since = pool.idle.popitem()
        pool.running.add(slot_id)
        self.free_cpu -= pool.cpu_percent
        self.free_memory -= pool.memory_mib
        # Cold is a task that waited for its slot's start, not one that found a new slot ready.
        cold = slot_id in self._unused and idle_since >= arrived_at
        self._unused.discard(slot_id)
        return Assign(task_id, slot_id, cold)

    def _release(self, pool: Pool, slot_id: str) -> None:
        pool.running.discard(slot_id)
        self.free_cpu += pool.cpu_percent
        self.free_memory += pool.memory_mib

    def _rest_idle(self, pool: Pool, slot_id: str, now: float) -> None:
        pool.idle[slot_id] = now
        self._spare[pool] = None

    def _unqueue(self, pool: Pool, task_id: str) -> None:
        del pool.waiting[task_id]
        del self._pool_of_task[task_id]
        self.waiting -= 1
        account = pool.key.account
        left = self._waiting_of[account] - 1
        if left:
            self._waiting_of[account] = left
        else:
            del self._waiting_of[account]

    def _stop_idle(self, pool: Pool, slot_id: str, now: float) -> StopSlot:
        del pool.idle[slot_id]
        self._forget_slot(pool, slot_id)
        self._file(pool, now)
        return StopSlot(slot_id)

    def _forget_slot(self, pool: Pool, slot_id: str) -> None:
        del self._pool_of_slot[slot_id]
        self._demand.slot_removed(pool)
        self._unused.discard(slot_id)
        if pool.ahead is not None:
            pool.ahead.gone(slot_id)

    def _file(self, pool: Pool, now: float) -> None:
        """Enter the pool into the indices that its present state belongs to, and take it out of the others."""
        account = pool.key.account
        pools = self._runnable.get(account)
        if pool.waiting and pool.idle:
            if pools is None:
                pools = self._runnable[account] = {}
            pools.setdefault(pool)
        else:
            pool.held_back_at = None
            if pools is not None and pool in pools:
                del pools[pool]
                if not pools:
                    del self._runnable[account]
        if len(pool.idle) > len(pool.waiting):
            self._spare[pool] = None
        room = pool.slots < self._most(pool)
        coming = len(pool.idle) + len(pool.starting)
        wants = room and len(pool.waiting) > coming
        eager = room and not wants and len(pool.waiting) + self._ahead(pool, now) > coming
        rests = (wants or eager) and now < pool.retry_at
        # After a failure one slot goes ahead of the others.
        may = not rests and not (pool.failures and pool.starting)
        if wants and may:
            self._demand.want(pool)
        else:
            self._demand.drop(pool)
        if eager and may:
            self._eager.setdefault(pool)
        else:
            self._eager.pop(pool, None)
        if rests:
            self._resting[pool] = None
        else:
            self._resting.pop(pool, None)


def number_slots(prefix: str) -> Iterator[str]:
    """Endless slot ids: `prefix` and a number."""
    number = 0
    while True:
        number += 1
        yield f"{prefix}{number}"


__all__ = ["Assign", "Decision", "Dispatch", "FailTask", "Limits", "StartSlot", "StopSlot", "number_slots"]
