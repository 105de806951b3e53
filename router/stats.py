"""Counts of the data plane: plain integers, read by the metrics and the status page."""

from __future__ import annotations

from bisect import bisect_left

from .retry import Failure

LATENCY_BOUNDS_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)


class SetStats:
    """Counts of one set since the process began. `latency` has one place per bound and one above them all."""

    __slots__ = (
        "back_pressure",
        "ejections",
        "failures",
        "latency",
        "latency_sum_s",
        "retries",
        "statuses",
        "truncated",
    )

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.failures: dict[str, int] = {}
        self.latency = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.latency_sum_s = 0.0
        self.retries = 0
        self.back_pressure = 0
        self.truncated = 0
        self.ejections = 0

    def note_answer(self, status: int, duration_s: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latency[bisect_left(LATENCY_BOUNDS_S, duration_s)] += 1
        self.latency_sum_s += duration_s

    def note_failure(self, failure: Failure) -> None:
        name = failure.name.lower()
        self.failures[name] = self.failures.get(name, 0) + 1

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())


class ProblemCounts:
    """How often the router itself answered with each problem."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
