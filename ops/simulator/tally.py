"""Counts what happens in a run, by interval and by account, in bounded memory: waits are kept in sketches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ddsketch import DDSketch

from ops.simulator.agenda import Agenda
from ops.simulator.virtual_set import End, VirtualSet, VirtualSlot, VirtualTask

ACCURACY: Final = 0.01
"""The largest error of a percentile, as a share of its value."""
SAMPLES: Final = 4
"""How many samples of queues and slots are taken in each interval."""


@dataclass(slots=True)
class Counts:
    """Counts of one account's tasks in one interval. `waits`: of the tasks that began, in seconds.

    `longest_s` is the longest of them. `core_s`: core seconds that its tasks held, also in attempts that were lost or
    gave way; `lost_core_s`: those of such attempts alone.
    """

    arrived: int = 0
    refused: int = 0
    began: int = 0
    cold: int = 0
    ended: int = 0
    failed: int = 0
    lost: int = 0
    gave_way: int = 0
    core_s: float = 0.0
    lost_core_s: float = 0.0
    longest_s: float = 0.0
    waits: DDSketch = field(default_factory=lambda: DDSketch(ACCURACY))

    def add(self, other: Counts) -> None:
        """Add the counts of another interval or account."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest_s = max(self.longest_s, other.longest_s)
        self.waits.merge(other.waits)


COUNTED: Final = tuple(name for name in Counts.__slots__ if name not in ("longest_s", "waits"))


@dataclass(slots=True)
class Sample:
    """Queue, slots and cores of all sets at one time. `fairness`: Jain's index over the accounts that wait."""

    waiting: int
    idle: int
    starting: int
    running: int
    cores: float
    fairness: float | None


class Tally:
    """The books of a run; sets tell it what happens. `groups`: the accounts that are counted apart, by source.

    `slots_mib_s`: the memory of all slots, in MiB, times the seconds for which each was there.
    """

    def __init__(
        self,
        agenda: Agenda,
        sets: Sequence[VirtualSet],
        groups: Sequence[str],
        length_s: float,
        intervals: int,
    ) -> None:
        self.groups = groups
        self.length_s = length_s
        self.slots_mib_s = 0.0
        self.interval_s = length_s / intervals
        # By group, by interval.
        self.counts: list[list[Counts]] = [[Counts() for _ in range(intervals)] for _ in groups]
        self.samples: list[list[Sample]] = [[] for _ in range(intervals)]
        self._agenda = agenda
        self._sets = sets
        self._interval = 0
        self._began_at = 0.0
        self._now_counts = [each[0] for each in self.counts]
        self._jain: defaultdict[str, _Jain] = defaultdict(_Jain)
        self._next_sample = 1
        agenda.at(self._sample_at(1), self._look)

    # -- what happens

    def arrived(self, source: int) -> None:
        """A task came to the router or the set."""
        self._now_counts[source].arrived += 1

    def refused(self, source: int) -> None:
        """Nobody took it."""
        self._now_counts[source].refused += 1

    def began(self, task: VirtualTask, cold: bool) -> None:
        """The task's first attempt began."""
        counts = self._now_counts[task.source]
        waited_s = task.waited_s
        counts.began += 1
        counts.waits.add(waited_s)
        if waited_s > counts.longest_s:
            counts.longest_s = waited_s
        if cold:
            counts.cold += 1

    def stopped(self, task: VirtualTask, *, lost: bool) -> None:
        """An attempt stopped that does not end the task."""
        counts = self._now_counts[task.source]
        counts.lost_core_s += self._held(task)
        if lost:
            counts.lost += 1
        else:
            counts.gave_way += 1

    def ended(self, task: VirtualTask, how: End) -> None:
        """The task ended."""
        counts = self._now_counts[task.source]
        counts.ended += 1
        if how is not End.SUCCEEDED:
            counts.failed += 1
            if how is not End.TIMED_OUT:
                return
        began_at = task.began_at
        if began_at >= self._began_at:
            counts.core_s += (self._agenda.now - began_at) * task.key.resources.cpu_percent / 100
        else:
            self._held(task)

    def slot_ended(self, slot: VirtualSlot) -> None:
        """A slot is gone, whatever it did."""
        self.slots_mib_s += (self._agenda.now - slot.began_at) * slot.key.resources.memory_mib

    def close(self) -> None:
        """The run is over: count what runs still."""
        for each in self._sets:
            for slot in each.slots.values():
                self.slot_ended(slot)
                if slot.task is not None:
                    self._held(slot.task)

    def _held(self, task: VirtualTask) -> float:
        """Count the cores that the task held since it began, in each interval its part; returns the core seconds."""
        now, cores = self._agenda.now, task.key.resources.cpu_percent / 100
        counts, interval_s = self.counts[task.source], self.interval_s
        for interval in range(int(task.began_at / interval_s), self._interval + 1):
            begins = max(task.began_at, interval * interval_s)
            counts[interval].core_s += max(0.0, min(now, (interval + 1) * interval_s) - begins) * cores
        return (now - task.began_at) * cores

    # -- looks

    def _sample_at(self, number: int) -> float:
        return number * self.interval_s / SAMPLES

    def _look(self, _: object) -> None:
        self._take_sample()
        number = self._next_sample
        if number % SAMPLES == 0:
            if number // SAMPLES == len(self.samples):
                return
            self._interval = number // SAMPLES
            self._began_at = self._agenda.now
            self._now_counts = [each[self._interval] for each in self.counts]
        self._next_sample = number + 1
        self._agenda.at(self._sample_at(number + 1), self._look)

    def _take_sample(self) -> None:
        states = [each.cell.books.slots_by_state() for each in self._sets]
        last = self._next_sample % SAMPLES == 0
        indices = [self._jain[each.name].look(each, last=last) for each in self._sets]
        self.samples[self._interval].append(
            Sample(
                waiting=sum(each.cell.waiting for each in self._sets),
                idle=sum(state["idle"] for state in states),
                starting=sum(state["starting"] for state in states),
                running=sum(state["running"] for state in states),
                cores=sum(each.cell.books.nodes.cpu_percent for each in self._sets) / 100,
                fairness=min((index for index in indices if index is not None), default=None),
            )
        )

    # -- sums

    def of(self, groups: Iterable[int], intervals: Iterable[int]) -> Counts:
        """The counts of these groups in these intervals, in one."""
        total, intervals = Counts(), list(intervals)
        for group in groups:
            for interval in intervals:
                total.add(self.counts[group][interval])
        return total


class _Jain:
    """How evenly accounts that compete hold the cores of one set, by their weights, over one interval.

    Jain's index is 1 where each holds as much for its weight as any other, and 1/n where one of n holds everything.
    Only accounts that had tasks waiting at every look of the interval compete: others want no more than they have.
    """

    def __init__(self) -> None:
        self._held: dict[str, float] | None = None

    def look(self, each: VirtualSet, *, last: bool) -> float | None:
        """Note who holds what; returns the index at the `last` look of an interval, if two or more compete."""
        accounts = each.cell.books.turns.shares.accounts
        before = self._held
        now = {
            name: account.held / account.weight + (0.0 if before is None else before[name])
            for name, account in accounts.items()
            if account.waiting and (before is None or name in before)
        }
        self._held = None if last else now
        total = sum(now.values())
        if not last or len(now) < 2 or not total:
            return None
        return total**2 / (len(now) * sum(held**2 for held in now.values()))
