"""What a decision costs, counted in calls of functions: it must not grow with tasks, accounts, pools or nodes."""

from __future__ import annotations

import sys
from collections import deque
from itertools import count
from types import FrameType

import pytest

from scheduler.policy.cell import Cell
from scheduler.policy.decisions import Assign, Decision, StartSlot
from scheduler.policy.limits import Limits, number_slots
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources

CORES_PER_NODE = 4
CALLS_MOST = 300
"""Bound of the calls for one task's arrival, slot and end. When this was written there were from 110 to 230."""
NEW_POOL_CALLS_MOST = 400
"""Bound of the calls for a task of a new pool. When this was written there were 207."""


class Busy:
    """A cell whose cores are all in use, and in which `queued` tasks of many accounts wait; time passes evenly."""

    def __init__(self, nodes: int, accounts: int, queued: int) -> None:
        limits = Limits(max_waiting=1 << 20, max_waiting_account=1 << 20)
        facts = [NodeFacts(f"n{n}", 100 * CORES_PER_NODE, 16_384, 2 * CORES_PER_NODE) for n in range(nodes)]
        self.cell = Cell(limits, number_slots("s"), facts)
        self._keys = [
            PoolKey(f"a{n}", f"sha256:{n % 500}", Resources(100, 512), Isolation.SHARED)
            for n in range(accounts)
        ]
        self._running: deque[str] = deque()
        self._starting: deque[str] = deque()
        self._numbers = count()
        self._now = 0.0
        for _ in range(CORES_PER_NODE * nodes + queued):
            self.arrive()
        while self._starting:
            self._do(self.cell.slot_ready(self._starting.popleft(), self._now))

    def arrive(self, key: PoolKey | None = None) -> None:
        number = next(self._numbers)
        key = key or self._keys[number % len(self._keys)]
        self._do(self.cell.task_arrived(f"t{number}", key, self._now, timeout_s=600.0))

    def go_on(self, tasks: int) -> None:
        """That many tasks end, one after the other, and as many arrive."""
        for _ in range(tasks):
            self._do(self.cell.slot_freed(self._running.popleft(), 700, self._now))
            self.arrive()
            while self._starting:
                self._do(self.cell.slot_ready(self._starting.popleft(), self._now))
            self._now += 1e-4

    def _do(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Assign):
                self._running.append(decision.slot_id)
            elif isinstance(decision, StartSlot):
                self._starting.append(decision.slot_id)


class Calls:
    """Counts the calls of Python's and of built-in functions within a `with` block."""

    def __enter__(self) -> Calls:
        self.number = 0
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, what: object) -> None:
        if event in ("call", "c_call"):
            self.number += 1


@pytest.mark.parametrize("nodes", [1, 250])
@pytest.mark.parametrize("queued", [100, 500, 2_000, 50_000])
def test_a_task_costs_the_same_whatever_waits(nodes: int, queued: int) -> None:
    busy = Busy(nodes, accounts=500, queued=queued)
    busy.go_on(2_000)
    assert busy.cell.waiting >= queued
    with Calls() as calls:
        busy.go_on(2_000)
    assert calls.number / 2_000 <= CALLS_MOST


def test_pools_of_ever_new_images_look_at_few_nodes() -> None:
    busy = Busy(1_000, accounts=10, queued=100)
    with Calls() as calls:
        for number in range(200):
            busy.arrive(PoolKey("eve", f"sha256:new-{number}", Resources(100, 512), Isolation.SHARED))
    assert calls.number / 200 <= NEW_POOL_CALLS_MOST
