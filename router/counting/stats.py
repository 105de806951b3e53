"""Counts of the data plane: plain integers, read by the metrics and the status page."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from router.wire.failure import Failure

LATENCY_BOUNDS_S: Final = (
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
"""Bounds of the histogram for Prometheus; the counts themselves are finer."""
_PARTS: Final = 6


def _fine(bounds: Sequence[float]) -> Iterator[float]:
    """The bounds, with five more in equal proportions between each two: a quantile is then right to about 8 %."""
    for low, high in pairwise((0.0001, 0.0003, *bounds, 900.0, 3600.0)):
        for part in range(_PARTS):
            yield low * (high / low) ** (part / _PARTS) if part else low
    yield 3600.0


FINE_BOUNDS_S: Final = tuple(_fine(LATENCY_BOUNDS_S))
COARSE: Final = tuple(FINE_BOUNDS_S.index(bound) for bound in LATENCY_BOUNDS_S)
"""The places of `LATENCY_BOUNDS_S` among the finer ones."""
ERROR_FROM_STATUS: Final = 500
WINDOW_S: Final = 30.0
TICK_S: Final = 3.0


class SetStats:
    """Counts of one set since the process began. `durations` has one place per fine bound and one above them all."""

    __slots__ = (
        "back_pressure",
        "durations",
        "ejections",
        "failures",
        "latency_sum_s",
        "retries",
        "statuses",
        "truncated",
    )

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.failures: dict[str, int] = {}
        self.durations = [0] * (len(FINE_BOUNDS_S) + 1)
        self.latency_sum_s = 0.0
        self.retries = 0
        self.back_pressure = 0
        self.truncated = 0
        self.ejections = 0

    def note_answer(self, status: int, duration_s: float) -> None:
        """An answer was relayed to its end, so long after the request's head."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.durations[bisect_left(FINE_BOUNDS_S, duration_s)] += 1
        self.latency_sum_s += duration_s

    def note_failure(self, failure: Failure) -> None:
        name = failure.name.lower()
        self.failures[name] = self.failures.get(name, 0) + 1

    def note_retry(self) -> None:
        """A request came here after it failed elsewhere, or here."""
        self.retries += 1

    def note_back_pressure(self) -> None:
        """The set took nothing, and said so."""
        self.back_pressure += 1

    def note_truncated(self) -> None:
        """An answer broke off."""
        self.truncated += 1

    def note_ejection(self) -> None:
        self.ejections += 1

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """Answers of status 500 and more, and attempts that failed."""
        bad = sum(count for status, count in self.statuses.items() if status >= ERROR_FROM_STATUS)
        return bad + sum(self.failures.values())

    @property
    def latency(self) -> list[int]:
        """How many answers took up to each of `LATENCY_BOUNDS_S`, and longer than all; not cumulative."""
        counts = []
        start = 0
        for index in COARSE:
            counts.append(sum(self.durations[start : index + 1]))
            start = index + 1
        return [*counts, sum(self.durations[start:])]

    @property
    def attempts(self) -> int:
        """Answers, and attempts that ended without one."""
        return self.answers + sum(self.failures.values())


class ProblemCounts:
    """How often the router itself answered with each problem."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count_on(self, counts: Mapping[str, int]) -> None:
        """Go on from the counts of the worker before."""
        self.counts.update(counts)

    def note(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


class Window(msgspec.Struct, frozen=True):
    """Counts of one set over the last `span_s` seconds; those of several processes add up."""

    span_s: float
    answers: int
    attempts: int
    errors: int
    durations: tuple[int, ...]

    def __add__(self, other: Window) -> Window:
        return Window(
            max(self.span_s, other.span_s),
            self.answers + other.answers,
            self.attempts + other.attempts,
            self.errors + other.errors,
            tuple(map(sum, zip(self.durations, other.durations, strict=True))),
        )

    @property
    def requests_per_s(self) -> float:
        return self.answers / self.span_s if self.span_s else 0.0

    @property
    def error_rate(self) -> float | None:
        """Errors as a share of attempts; None without any."""
        return self.errors / self.attempts if self.attempts else None

    def quantile_s(self, share: float) -> float | None:
        """How long the answer took that is slower than this share (0.99) of them; None without any."""
        wanted = share * self.answers
        if not self.answers:
            return None
        seen = 0
        for index, count in enumerate(self.durations):
            seen += count
            if count and seen >= wanted:
                high = FINE_BOUNDS_S[min(index, len(FINE_BOUNDS_S) - 1)]
                low = FINE_BOUNDS_S[index - 1] if 0 < index < len(FINE_BOUNDS_S) else high / 2
                return low * math.pow(high / low, 1 - (seen - wanted) / count)
        return FINE_BOUNDS_S[-1]


_Totals = tuple[int, int, int, tuple[int, ...]]
_NOTHING: Final[_Totals] = (0, 0, 0, (0,) * (len(FINE_BOUNDS_S) + 1))


class Recent:
    """The counts of the last half minute: a copy of them every three seconds."""

    def __init__(self) -> None:
        self._copies: deque[tuple[float, dict[str, _Totals]]] = deque(maxlen=int(WINDOW_S / TICK_S) + 1)

    def tick(self, now: float, stats: Mapping[str, SetStats]) -> None:
        """Call it every second or so; `now` is any monotonic time."""
        if self._copies and now - self._copies[-1][0] < TICK_S:
            return
        before = self._copies[-1][1] if self._copies else {}
        self._copies.append((now, {name: _totals(each, before.get(name)) for name, each in stats.items()}))

    def window(self, name: str, now: float, stats: SetStats) -> Window:
        """The last half minute of a set, up to `now`."""
        began, then = now, _NOTHING
        for moment, copies in self._copies:
            if now - moment <= WINDOW_S + TICK_S:
                began, then = moment, copies.get(name, _NOTHING)
                break
        answers, attempts, errors, durations = _totals(stats, None)
        return Window(
            now - began,
            answers - then[0],
            attempts - then[1],
            errors - then[2],
            tuple(new - old for new, old in zip(durations, then[3], strict=True)),
        )


def _totals(stats: SetStats, same: _Totals | None) -> _Totals:
    attempts = stats.attempts
    if same is not None and same[:3] == (stats.answers, attempts, stats.errors):
        return same  # Idle sets cost no memory.
    return stats.answers, attempts, stats.errors, tuple(stats.durations)
