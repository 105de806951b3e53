"""A set in virtual time: the real cell, and a shell that carries its decisions out as `scheduler.floor` does."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

from ops.simulator.agenda import Agenda
from scheduler.errors import AccountLimit, BadRequest, Unavailable
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
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey

NEVER: Final = float("inf")
KILL_S: Final = 0.01
"""Seconds from the order to kill a task until its slot is clean."""
CLEAN_S: Final = 0.2
"""Seconds until nothing of a slot that has ended is left on its node."""


class End(StrEnum):
    """How a task ended."""

    SUCCEEDED = "succeeded"
    TIMED_OUT = "timed_out"
    EXPIRED = "expired"
    """It waited for its longest time."""
    GIVEN_UP = "given_up"
    """The platform lost each of its attempts."""
    BROKEN_OFF = "broken_off"
    """Its set died while its caller waited, and the router could not send it to another."""
    FAILED = "failed"
    """No slot of its pool could start."""


class VirtualTask:
    """A task: it runs for `run_s` each time. Times are the agenda's; `ends_at`: when the program that runs now ends."""

    __slots__ = (
        "arrived_at",
        "attempts",
        "began_at",
        "ends_at",
        "id",
        "key",
        "limit_s",
        "queue_timeout_s",
        "run_s",
        "slot_id",
        "source",
        "steady",
        "waited_s",
    )

    def __init__(
        self,
        task_id: str,
        key: PoolKey,
        run_s: float,
        now: float,
        *,
        source: int = 0,
        steady: bool = False,
        queue_timeout_s: float | None = None,
        limit_s: float = 3600.0,
    ) -> None:
        self.id = task_id
        self.key = key
        self.run_s = run_s
        self.arrived_at = now
        self.source = source
        self.steady = steady
        self.queue_timeout_s = queue_timeout_s
        self.limit_s = limit_s
        self.attempts = 0
        self.slot_id = ""
        self.began_at = now
        self.ends_at = NEVER
        # How long it waited for its first slot; below 0 until it has had one.
        self.waited_s = -1.0


class VirtualSlot:
    """A slot on a node, and the task that it has. `began_at`: when it began to start."""

    __slots__ = ("began_at", "id", "key", "node_id", "task")

    def __init__(self, slot_id: str, key: PoolKey, node_id: str, now: float) -> None:
        self.began_at = now
        self.id = slot_id
        self.key = key
        self.node_id = node_id
        self.task: VirtualTask | None = None


class Watch(Protocol):
    """Is told what happens in a set."""

    def began(self, task: VirtualTask, cold: bool) -> None:
        """The task's first attempt began."""

    def stopped(self, task: VirtualTask, *, lost: bool) -> None:
        """An attempt stopped that does not end the task: it was `lost`, or gave way."""

    def ended(self, task: VirtualTask, how: End) -> None:
        """The task ended."""

    def slot_ended(self, slot: VirtualSlot) -> None:
        """The slot is gone."""


class VirtualSet:
    """One set. `start_s` draws how long a slot of a pool takes to start; `overhead_s`: how long a slot is busy with
    each task beside its program."""

    def __init__(
        self,
        name: str,
        agenda: Agenda,
        cell: Cell,
        watch: Watch,
        start_s: Callable[[PoolKey], float],
        *,
        overhead_s: float = 0.0,
    ) -> None:
        self.name = name
        self.cell = cell
        self.tasks: dict[str, VirtualTask] = {}
        self.slots: dict[str, VirtualSlot] = {}
        self.is_down = False
        self._agenda = agenda
        self._watch = watch
        self._start_s = start_s
        self._overhead_s = overhead_s
        # The times at which the cell will be woken, as a heap.
        self._wakes: list[float] = []
        # Nodes that are dead, known to the cell or not.
        self._dead: set[str] = set()
        self._cleans = cell.books.parties is not None
        self._carry_out: dict[type, Callable[[Decision], None]] = {
            Assign: self._assign,  # type: ignore[dict-item]
            StartSlot: self._start,  # type: ignore[dict-item]
            StopSlot: self._stop,  # type: ignore[dict-item]
            DropSlot: self._drop,  # type: ignore[dict-item]
            GiveWay: self._give_way,  # type: ignore[dict-item]
            TimeUp: self._time_up,  # type: ignore[dict-item]
            QueueExpired: self._expire,  # type: ignore[dict-item]
            FailTask: self._fail,  # type: ignore[dict-item]
        }

    # -- tasks

    def arrive(self, task: VirtualTask) -> AccountLimit | BadRequest | Unavailable | None:
        """A task arrives now; returns the reason where the set refuses it."""
        try:
            self.cell.check(task.key, self._agenda.now, task.limit_s)
        except (AccountLimit, BadRequest, Unavailable) as refusal:
            return refusal
        self.tasks[task.id] = task
        self._wait(task)
        return None

    def _wait(self, task: VirtualTask) -> None:
        self._apply(
            self.cell.task_arrived(
                task.id,
                task.key,
                self._agenda.now,
                timeout_s=task.queue_timeout_s,
                limit_s=task.limit_s,
                caller_waits=task.steady,
            )
        )

    # -- the set as a whole

    def die(self, no_cell: Cell) -> list[VirtualTask]:
        """The set is dead, with its nodes; returns the tasks whose callers waited, which it forgets.

        `no_cell`: a cell without nodes, which is asked nothing.
        """
        self.is_down = True
        self.cell = no_cell
        for slot in self.slots.values():
            self._watch.slot_ended(slot)
            if slot.task is not None:
                slot.task.ends_at = NEVER
                self._watch.stopped(slot.task, lost=True)
        self.slots.clear()
        lost = [task for task in self.tasks.values() if task.steady]
        for task in lost:
            del self.tasks[task.id]
            task.slot_id = ""
        return lost

    def rise(self, cell: Cell) -> None:
        """The set is back with this cell, whose slots have names of their own, and finds its asynchronous tasks."""
        self.is_down = False
        self.cell = cell
        for task in list(self.tasks.values()):
            if task.slot_id:
                task.slot_id = ""
                self._again(task)
            else:
                self._wait(task)

    # -- nodes

    def node_dies(self, node_id: str, notice_s: float) -> None:
        """The node is dead, with all that runs there; the set notices `notice_s` later."""
        self._dead.add(node_id)
        for slot in self.slots.values():
            if slot.node_id == node_id and slot.task is not None:
                slot.task.ends_at = NEVER
        self._agenda.at(self._agenda.now + notice_s, self._node_lost, node_id)

    def node_returns(self, facts: NodeFacts) -> None:
        """The node is back, and empty."""
        now = self._agenda.now
        if facts.id in self._dead:
            # A node that was away for less than the set takes to notice has lost its slots all the same.
            self._node_lost(facts.id)
            self._dead.discard(facts.id)
        self._apply(self.cell.node_ready(facts, now))

    def _node_lost(self, node_id: str) -> None:
        if node_id in self._dead and not self.is_down:
            self._apply(self.cell.node_lost(node_id, self._agenda.now))

    # -- decisions

    def _apply(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            self._carry_out[type(decision)](decision)
        wake_at = self.cell.wake_at
        if wake_at < (self._wakes[0] if self._wakes else NEVER):
            heapq.heappush(self._wakes, wake_at)
            self._agenda.at(wake_at, self._wake)

    def _wake(self, _: object) -> None:
        heapq.heappop(self._wakes)
        if self.is_down:
            return
        now = self._agenda.now
        self._apply(self.cell.wake(now) if self.cell.wake_at <= now else [])

    def _assign(self, decision: Assign) -> None:
        task, slot = self.tasks[decision.task_id], self.slots[decision.slot_id]
        now = self._agenda.now
        slot.task = task
        task.slot_id = slot.id
        task.attempts += 1
        task.began_at = now
        if task.waited_s < 0.0:
            task.waited_s = now - task.arrived_at
            self._watch.began(task, decision.cold)
        self.cell.program_began(slot.id, task.limit_s, now)
        if slot.node_id not in self._dead:
            task.ends_at = ends_at = now + task.run_s + self._overhead_s
            self._agenda.at(ends_at, self._ran, task)

    def _start(self, decision: StartSlot) -> None:
        slot = self.slots[decision.slot_id] = VirtualSlot(
            decision.slot_id, decision.pool, decision.node_id, self._agenda.now
        )
        if slot.node_id not in self._dead:
            self._agenda.at(self._agenda.now + self._start_s(slot.key), self._ready, slot)

    def _stop(self, decision: StopSlot) -> None:
        self._gone(self.slots.pop(decision.slot_id))

    def _drop(self, decision: DropSlot) -> None:
        slot = self.slots.pop(decision.slot_id)
        self._gone(slot)
        if slot.task is not None:
            task = slot.task
            task.ends_at = NEVER
            # The cell is told once it has decided all that it decides now.
            self._agenda.at(self._agenda.now, self._lost, task)

    def _give_way(self, decision: GiveWay) -> None:
        task = self.tasks[decision.task_id]
        task.ends_at = NEVER
        self._agenda.at(self._agenda.now + KILL_S, self._gave_way, (task, task.attempts))

    def _time_up(self, decision: TimeUp) -> None:
        task = self.tasks[decision.task_id]
        task.ends_at = ends_at = self._agenda.now + KILL_S
        self._agenda.at(ends_at, self._timed_out, task)

    def _expire(self, decision: QueueExpired) -> None:
        self._watch.ended(self.tasks.pop(decision.task_id), End.EXPIRED)

    def _fail(self, decision: FailTask) -> None:
        self._watch.ended(self.tasks.pop(decision.task_id), End.FAILED)

    # -- what becomes of them

    def _ready(self, slot: VirtualSlot) -> None:
        if self.slots.get(slot.id) is slot and slot.node_id not in self._dead:
            self._apply(self.cell.slot_ready(slot.id, self._agenda.now))

    def _ran(self, task: VirtualTask) -> None:
        # An attempt that was lost, or killed, does not end like that.
        if task.ends_at == self._agenda.now:
            self._finish(task, End.SUCCEEDED)

    def _timed_out(self, task: VirtualTask) -> None:
        if task.ends_at == self._agenda.now:
            self._finish(task, End.TIMED_OUT)

    def _finish(self, task: VirtualTask, how: End) -> None:
        task.ends_at = NEVER
        del self.tasks[task.id]
        self.slots[task.slot_id].task = None
        self._watch.ended(task, how)
        now = self._agenda.now
        cpu_us = round((now - task.began_at) * 1e4) * task.key.resources.cpu_percent
        self._apply(self.cell.slot_freed(task.slot_id, cpu_us, now))

    def _gave_way(self, killed: tuple[VirtualTask, int]) -> None:
        task, attempt = killed
        slot = self.slots.get(task.slot_id)
        if task.attempts != attempt or slot is None or slot.task is not task:
            return
        slot.task = None
        # The attempt does not count.
        task.attempts -= 1
        self._watch.stopped(task, lost=False)
        now = self._agenda.now
        self._apply(self.cell.slot_freed(slot.id, 0, now))
        self._apply(
            self.cell.task_gave_way(
                task.id, task.key, now, timeout_s=task.queue_timeout_s, limit_s=task.limit_s
            )
        )

    def _lost(self, task: VirtualTask) -> None:
        self._watch.stopped(task, lost=True)
        self._again(task)

    def _again(self, task: VirtualTask) -> None:
        decisions = self.cell.attempt_lost(
            task.id,
            task.key,
            task.attempts,
            self._agenda.now,
            caller_waits=task.steady,
            timeout_s=task.queue_timeout_s,
            limit_s=task.limit_s,
        )
        if decisions and isinstance(decisions[0], GiveUp):
            self._watch.ended(self.tasks.pop(task.id), End.GIVEN_UP)
            return
        self._apply(decisions)

    def _gone(self, slot: VirtualSlot) -> None:
        self._watch.slot_ended(slot)
        if self._cleans:
            self._agenda.at(self._agenda.now + CLEAN_S, self._removed, slot.id)

    def _removed(self, slot_id: str) -> None:
        self._apply(self.cell.slot_removed(slot_id, self._agenda.now))
