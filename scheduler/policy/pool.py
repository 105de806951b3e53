"""A pool as the dispatching policy counts it: the slots that are alike, and the tasks that wait for one of them."""

from __future__ import annotations

from collections import OrderedDict

from scheduler.policy.ahead import Ahead
from scheduler.pool import PoolKey
from scheduler.task import Isolation


class Pool:
    """`at_once`: how many of its tasks could run at the same time in an empty set. Times are the policy's clock."""

    __slots__ = (
        "ahead",
        "at_once",
        "cpu_percent",
        "failures",
        "held_back_at",
        "idle",
        "key",
        "memory_mib",
        "retry_at",
        "running",
        "starting",
        "waiting",
    )

    def __init__(self, key: PoolKey, at_once: int) -> None:
        self.key = key
        self.at_once = at_once
        # A fresh slot has one task only, so the next must be on its way before its task is.
        self.ahead = Ahead() if key.isolation is Isolation.FRESH else None
        self.cpu_percent = key.resources.cpu_percent
        self.memory_mib = key.resources.memory_mib
        # Waiting tasks in order of arrival, with the time of arrival.
        # (Ordered, because a dict's first entry takes long to find once many before it were deleted.)
        self.waiting: OrderedDict[str, float] = OrderedDict()
        # Idle slots, the most recently used last: the warmest is taken first, the coldest retires first.
        self.idle: dict[str, float] = {}
        self.starting: set[str] = set()
        self.running: set[str] = set()
        # Slots in a row that died before their first task, and when the next may be started.
        self.failures = 0
        self.retry_at = 0.0
        # Since when its next task, whose turn it was, has not fitted into what is free.
        self.held_back_at: float | None = None

    @property
    def slots(self) -> int:
        return len(self.idle) + len(self.starting) + len(self.running)
