"""A pool as the cell counts it: the slots that are alike, and the tasks that wait for one of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from scheduler.policy.ahead import Ahead
from scheduler.policy.idle_times import IdleTimes
from scheduler.task import Isolation, Priority

NEVER: Final = float("inf")

CALLERS_FIRST: Final = 3
"""How many synchronous tasks of a pool in a row may start before an asynchronous one that has waited for longer."""

if TYPE_CHECKING:
    from scheduler.policy.node import Node
    from scheduler.policy.shares import Account
    from scheduler.policy.timers import Timer
    from scheduler.pool import PoolKey


class Slot:
    """A slot of a pool on a node. `task_id`: what runs in it. `since`: when it began to start, rest or run that."""

    __slots__ = (
        "charge_percent",
        "ends_at",
        "foreseen",
        "gives_way",
        "id",
        "node",
        "pool",
        "rested_at",
        "since",
        "spent",
        "task_id",
        "timer",
        "unused",
    )

    def __init__(self, slot_id: str, pool: Pool, node: Node, now: float) -> None:
        self.id = slot_id
        self.pool = pool
        self.node = node
        self.task_id: str | None = None
        # The charge of the task that it runs, fixed when the task starts.
        self.charge_percent = 0
        # It has started and has had no task yet.
        self.unused = False
        self.since = now
        # Since when it has been idle. A slot that was started ahead of need, which is `foreseen`, goes on with the idle
        # time of one that had left.
        self.rested_at = now
        self.foreseen = False
        # When its cluster ends it, and whether that is too soon for another task of the pool.
        self.ends_at = NEVER
        self.spent = False
        # Its task was told to give way.
        self.gives_way = False
        # The time by which it must have started, or the program of its task must have ended.
        self.timer: Timer[tuple[str, str]] | None = None


class Pool:
    """`at_once`: how many of its tasks could run at the same time in an empty cell. Times are the cell's clock."""

    __slots__ = (
        "account",
        "ahead",
        "at_once",
        "callers",
        "charge_percent",
        "cpu_percent",
        "failures",
        "foreseen",
        "held_back_at",
        "idle",
        "idle_times",
        "is_spare",
        "kept_on",
        "key",
        "longest_s",
        "look_at",
        "memory_mib",
        "most",
        "passed",
        "paused",
        "retry_at",
        "running",
        "slots",
        "starting",
        "takes_turns",
        "took_turn",
        "trouble",
        "waiting",
        "wants",
    )

    def __init__(self, key: PoolKey, account: Account) -> None:
        self.key = key
        self.account = account
        self.at_once = 0
        # A fresh slot has one task only, so the next must be on its way before its task is.
        self.ahead = Ahead() if key.isolation is Isolation.FRESH else None
        # What is known of its slots' idle times; None where it keeps slots for a fixed time. And how many slots are to
        # be started ahead of need.
        self.idle_times: IdleTimes | None = None
        self.foreseen = 0
        # Its tasks run on what others leave, and give way to them.
        self.is_spare = key.priority is Priority.SPARE
        self.cpu_percent = key.resources.cpu_percent
        self.memory_mib = key.resources.memory_mib
        # Hundredths of a core that a running task of it is charged: those that it holds, or those that the memory that
        # it holds is worth in this cell.
        self.charge_percent = self.cpu_percent
        # Waiting tasks in the order in which they run, with the time of arrival.
        # (Ordered, because a dict's first entry takes long to find once many before it were deleted.)
        self.waiting: OrderedDict[str, float] = OrderedDict()
        # Those of them for which a caller waits, in the same order; and how many such tasks in a row have started
        # before another that had waited for longer.
        self.callers: OrderedDict[str, None] = OrderedDict()
        self.passed = 0
        # The longest time that one of its tasks may run; 0 once none waits or runs.
        self.longest_s = 0.0
        # How many of its tasks pause before their next attempt.
        self.paused = 0
        # Idle slots, the most recently used last: the warmest is taken first, the coldest retires first.
        self.idle: dict[Slot, None] = {}
        self.starting: set[Slot] = set()
        self.running: set[Slot] = set()
        self.slots = 0
        # The most slots that it may have.
        self.most = 1
        # Whether it is in the cell's turns, and whether its demand is known.
        self.takes_turns = False
        # Rises with each of its turns.
        self.took_turn = 0
        self.wants = False
        # Slots in a row that died before their first task, and when the next may be started.
        self.failures = 0
        self.retry_at = 0.0
        # Why its last slot could not start; empty once one has.
        self.trouble = ""
        # Since when its next task, whose turn it was, has not fitted into what is free.
        self.held_back_at: float | None = None
        # The node whose free room is kept for that task, once it has been held back for long enough.
        self.kept_on: Node | None = None
        # When the cell looks at it again because time has passed.
        self.look_at = NEVER

    def next_task(self) -> str:
        """Choose the waiting task that starts now: synchronous ones first, but one of four is the longest waiting.

        A caller holds a connection and may give up. Nobody watches an asynchronous task, but it must not starve.
        """
        longest = next(iter(self.waiting))
        if self.callers and longest not in self.callers and self.passed < CALLERS_FIRST:
            self.passed += 1
            return next(iter(self.callers))
        self.passed = 0
        return longest

    def fits(self, node: Node) -> bool:
        """Return True if the pool's next task fits into what is free on the node."""
        return self.cpu_percent <= node.free_cpu and self.memory_mib <= node.free_memory

    @property
    def is_unused(self) -> bool:
        """Return True if it has neither slots nor tasks."""
        return not (self.slots or self.waiting or self.paused)
