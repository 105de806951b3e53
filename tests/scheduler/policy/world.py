"""A shell around the cell in virtual time: slots start, tasks run, nodes die, and hours pass in less than a second.

It carries the cell's decisions out as `scheduler.floor` does, and keeps books of its own to check each against.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

import msgspec

from scheduler.policy.cell import Cell
from scheduler.policy.decisions import (
    Assign,
    Decision,
    DropSlot,
    FailTask,
    GiveUp,
    GiveWay,
    QueueExpired,
    StartSlot,
    StopSlot,
    TimeUp,
)
from scheduler.policy.limits import Limits, Retries, number_slots
from scheduler.policy.node import NodeFacts, Standing
from scheduler.policy.tenancy import Tenancy
from scheduler.pool import PoolKey


class SimTask(msgspec.Struct):
    """A task of the world: it runs for `run_s` each time, at most for `limit_s`.

    `ends` says how it ended, once for each end.
    """

    id: str
    key: PoolKey
    run_s: float
    arrived_at: float = 0.0
    timeout_s: float | None = None
    limit_s: float = 3600.0
    attempts: int = 0
    gave_way: int = 0
    slot_id: str = ""
    started_at: list[float] = []
    ends: list[str] = []
    ended_at: float = 0.0


class SimSlot(msgspec.Struct):
    """A slot of the world. `run`: which run of a task it has, so that an end of an earlier one is not taken for it."""

    id: str
    pool: PoolKey
    node_id: str
    ready: bool = False
    task: SimTask | None = None
    run: int = 0


class World:
    """Virtual time around a cell. `start_s`: how long a slot takes to start; None: it never does. `clean_s`: how long
    something of a slot that has ended is left on its node; None: for ever."""

    def __init__(
        self,
        nodes: list[NodeFacts],
        limits: Limits | None = None,
        retries: Retries | None = None,
        *,
        start_s: float | None = 0.3,
        kill_s: float = 0.01,
        clean_s: float | None = 0.05,
    ) -> None:
        self.now = 0.0
        self.start_s = start_s
        self.kill_s = kill_s
        self.clean_s = clean_s
        self.limits = limits or Limits()
        self.cell = Cell(self.limits, number_slots("s"), nodes, retries)
        self.tasks: dict[str, SimTask] = {}
        self.slots: dict[str, SimSlot] = {}
        self.log: list[str] = []
        self.used_us: dict[str, int] = {}
        # What is on each node by slot id, until nothing of the slot is left: the account whose it is.
        self.on_node: dict[str, dict[str, str]] = {}
        self._free = {node.id: [node.cpu_percent, node.memory_mib, node.max_slots] for node in nodes}
        self._facts = {node.id: node for node in nodes}
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = count()
        self._numbers = count(1)

    # -- what happens

    def at(self, when_s: float, what: Callable[[], object]) -> None:
        """Let `what` happen at that time."""
        heapq.heappush(self._later, (when_s, next(self._serial), what))

    def arrive(
        self,
        key: PoolKey,
        run_s: float = 1.0,
        *,
        task_id: str | None = None,
        timeout_s: float | None = None,
        limit_s: float = 3600.0,
        caller_waits: bool = False,
    ) -> SimTask:
        """A task arrives now."""
        task = SimTask(task_id or f"t{next(self._numbers)}", key, run_s, self.now, timeout_s, limit_s)
        self.tasks[task.id] = task
        self.cell.check(key, self.now)
        self._do(
            self.cell.task_arrived(task.id, key, self.now, timeout_s=timeout_s, caller_waits=caller_waits)
        )
        return task

    def leave(self, task: SimTask) -> None:
        """The task gives up waiting."""
        self._end(task, "left")
        self._do(self.cell.task_left(task.id, self.now))

    def lose_node(self, node_id: str) -> None:
        """The node does not answer any more."""
        del self._free[node_id]
        self._do(self.cell.node_lost(node_id, self.now))

    def drain_node(self, node_id: str) -> None:
        """The node takes nothing new."""
        self._do(self.cell.node_draining(node_id, self.now))

    def stand(self, node_id: str, standing: Standing, reason: str = "") -> None:
        """The cluster says whether new slots start on the node."""
        self._do(self.cell.node_stands(node_id, standing, reason, self.now))

    def join_node(self, facts: NodeFacts) -> None:
        """The node is ready."""
        if facts.id not in self._free:
            self._free[facts.id] = [facts.cpu_percent, facts.memory_mib, facts.max_slots]
            self._facts[facts.id] = facts
        self._do(self.cell.node_ready(facts, self.now))

    def run(self, until_s: float = float("inf")) -> None:
        """Let time pass until then, or until nothing happens any more."""
        while True:
            next_s = self._later[0][0] if self._later else float("inf")
            wake_s = self.cell.wake_at
            if min(next_s, wake_s) > until_s or min(next_s, wake_s) == float("inf"):
                break
            if next_s <= wake_s:
                self.now, _, what = heapq.heappop(self._later)
                what()
            else:
                self.now = max(self.now, wake_s)
                self._do(self.cell.wake(self.now))
        if until_s < float("inf"):
            self.now = until_s

    # -- decisions

    def _do(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            self._carry_out(decision)

    def _carry_out(self, decision: Decision) -> None:
        if isinstance(decision, Assign):
            self._assign(decision)
        elif isinstance(decision, StartSlot):
            assert decision.slot_id not in self.slots
            self._free[decision.node_id][2] -= 1
            assert self._free[decision.node_id][2] >= 0, "more slots on a node than it has places"
            self.slots[decision.slot_id] = SimSlot(decision.slot_id, decision.pool, decision.node_id)
            self.on_node.setdefault(decision.node_id, {})[decision.slot_id] = decision.pool.account
            self._check_walls(decision.node_id)
            self.log.append(f"start {decision.slot_id} on {decision.node_id}")
            self._start(decision.slot_id)
        elif isinstance(decision, StopSlot):
            slot = self._gone(decision.slot_id)
            assert slot.task is None, "a slot was stopped under its task"
            self.log.append(f"stop {decision.slot_id}")
        elif isinstance(decision, DropSlot):
            slot = self._gone(decision.slot_id)
            self.log.append(f"drop {decision.slot_id}: {decision.reason}")
            if slot.task is not None:
                task = slot.task
                # The executor finds out a little later.
                self.at(self.now + self.kill_s, lambda: self._lost(task))
        elif isinstance(decision, GiveWay):
            task = self.tasks[decision.task_id]
            self.log.append(f"{task.id} gives way")
            slot = self.slots[task.slot_id]
            assert slot.task is task
            run = slot.run
            self.at(self.now + self.kill_s, lambda: self._gave_way(slot, run))
        elif isinstance(decision, TimeUp):
            task = self.tasks[decision.task_id]
            slot = self.slots[task.slot_id]
            assert slot.task is task
            run = slot.run
            self.at(self.now + self.kill_s, lambda: self._ended(slot, run, "timed out"))
        elif isinstance(decision, QueueExpired):
            self._end(self.tasks[decision.task_id], "expired")
        elif isinstance(decision, GiveUp):
            self._end(self.tasks[decision.task_id], "given up")
        elif isinstance(decision, FailTask):
            self._end(self.tasks[decision.task_id], "failed")

    def _assign(self, decision: Assign) -> None:
        task, slot = self.tasks[decision.task_id], self.slots[decision.slot_id]
        assert slot.ready
        assert slot.task is None, "two tasks in one slot"
        assert slot.pool == task.key, "a slot of another pool"
        assert not task.ends, "a task that has ended runs again"
        free, wanted = self._free[slot.node_id], task.key.resources
        free[0] -= wanted.cpu_percent
        free[1] -= wanted.memory_mib
        assert free[0] >= 0, "more cores in use on a node than it has"
        assert free[1] >= 0, "more memory in use on a node than it has"
        assert self._facts[slot.node_id].cpu_features.issuperset(task.key.cpu_features)
        slot.task = task
        slot.run += 1
        task.slot_id = slot.id
        task.attempts += 1
        task.started_at.append(self.now)
        run = slot.run
        self.cell.program_began(slot.id, task.limit_s, self.now)
        self.at(self.now + task.run_s, lambda: self._ran(slot, run))

    def _start(self, slot_id: str) -> None:
        if self.start_s is not None:
            self.at(self.now + self.start_s, lambda: self._ready(slot_id))

    def _failed(self, slot_id: str) -> None:
        if slot_id in self.slots:
            self._gone(slot_id)
            self._do(self.cell.slot_gone(slot_id, "its start failed", self.now))

    def _ready(self, slot_id: str) -> None:
        slot = self.slots.get(slot_id)
        if slot is not None:
            slot.ready = True
            self._do(self.cell.slot_ready(slot_id, self.now))

    def _ran(self, slot: SimSlot, run: int) -> None:
        self._ended(slot, run, "succeeded")

    def _ended(self, slot: SimSlot, run: int, how: str) -> None:
        if self.slots.get(slot.id) is not slot or slot.run != run or slot.task is None:
            return
        task = slot.task
        self._end(task, how)
        cpu_us = self._cpu_us(slot, task)
        self.used_us[task.key.account] = self.used_us.get(task.key.account, 0) + cpu_us
        self._release(slot)
        self._do(self.cell.slot_freed(slot.id, cpu_us, self.now))

    def _cpu_us(self, slot: SimSlot, task: SimTask) -> int:
        return round(task.run_s * 1e4 * task.key.resources.cpu_percent)

    def _gave_way(self, slot: SimSlot, run: int) -> None:
        if self.slots.get(slot.id) is not slot or slot.run != run or slot.task is None:
            return
        task = slot.task
        task.attempts -= 1
        task.gave_way += 1
        self._release(slot)
        self._do(self.cell.slot_freed(slot.id, 0, self.now))
        self._do(self.cell.task_gave_way(task.id, task.key, self.now, timeout_s=task.timeout_s))

    def _lost(self, task: SimTask) -> None:
        self._do(self.cell.attempt_lost(task.id, task.key, task.attempts, self.now))

    def _release(self, slot: SimSlot) -> None:
        wanted = slot.pool.resources
        free = self._free[slot.node_id]
        free[0] += wanted.cpu_percent
        free[1] += wanted.memory_mib
        slot.task = None

    def _gone(self, slot_id: str) -> SimSlot:
        slot = self.slots.pop(slot_id)
        if self.clean_s is not None:
            self.at(self.now + self.clean_s, lambda: self.clean(slot))
        free = self._free.get(slot.node_id)
        if free is not None:
            free[2] += 1
            if slot.task is not None:
                free[0] += slot.pool.resources.cpu_percent
                free[1] += slot.pool.resources.memory_mib
        return slot

    def clean(self, slot: SimSlot) -> None:
        """Nothing of an ended slot is left on its node."""
        if self.on_node[slot.node_id].pop(slot.id, None) is not None:
            self._do(self.cell.slot_removed(slot.id, self.now))

    def _check_walls(self, node_id: str) -> None:
        accounts = set(self.on_node[node_id].values())
        alone = [
            account
            for account in accounts
            if self.limits.account_tenancy.get(account, self.limits.tenancy) is Tenancy.DEDICATED
        ]
        assert not alone or len(accounts) == 1, (
            f"{node_id} has slots of {accounts}, one of which needs it alone"
        )

    def _end(self, task: SimTask, how: str) -> None:
        task.ends.append(how)
        task.ended_at = self.now

    # -- what a test asks

    def nodes_of(self, key: PoolKey) -> list[str]:
        """The nodes of the pool's slots, in the order in which the slots were started."""
        return [slot.node_id for slot in self.slots.values() if slot.pool == key]
