"""History of each set and each cohort of a rollout over the last quarter of an hour: one point every five seconds, for
the curves of the status page. Pure and bounded.

It gets counts that only grow, and keeps their differences.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from router.counting.stats import SetStats, Window
from router.counting.tally import Tally, minus, total

STEP_S: Final = 5.0
SPAN_S: Final = 900.0
MAX_SAMPLES: Final = 6_000
"""Most points in all: beyond 33 busy sets the history gets shorter instead of larger."""


class Cohorts(Protocol):
    """The part of `observer.Observer` that the curves read. When the weight changes, other tallies begin at nothing."""

    canary: Tally
    control: Tally


class Sample(msgspec.Struct, frozen=True):
    """One line of one point. Latencies in milliseconds; None where nothing was measured."""

    requests: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Point(msgspec.Struct, frozen=True):
    """The `span_s` seconds that ended at `ended` (any monotonic time). `serial` counts from 1. Sets that did nothing
    are left out."""

    serial: int
    ended: float
    span_s: float
    sets: Mapping[str, Sample]
    cohorts: Mapping[str, Sample]


_Counts = tuple[int, int, int, tuple[int, ...]]


class Curves:
    """Call `tick` every second or so; `since` gives the points that a page lacks."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=int(SPAN_S / STEP_S))
        self._samples = 0
        self._serial = 0
        self._at: float | None = None
        self._sets: dict[str, _Counts] = {}
        self._cohorts: dict[str, tuple[Tally, Tally]] = {}
        """Each cohort's tally, which goes on counting, and a copy as it was at the last tick."""

    @property
    def serial(self) -> int:
        """The serial of the last point; 0: no point exists yet."""
        return self._serial

    def tick(self, now: float, sets: Mapping[str, SetStats], cohorts: Cohorts | None = None) -> None:
        """Add a point where one is due. `cohorts`: None while no rollout compares two sets."""
        if self._at is not None and now - self._at < STEP_S:
            return
        first, span_s = self._at is None, 0.0 if self._at is None else now - self._at
        self._at = now
        set_samples = self._set_samples(sets, span_s)
        cohort_samples = self._cohort_samples(cohorts)
        if first:
            return
        self._serial += 1
        if len(self._points) == self._points.maxlen:
            self._forget()
        self._points.append(Point(self._serial, now, span_s, set_samples, cohort_samples))
        self._samples += len(set_samples) + len(cohort_samples)
        while self._samples > MAX_SAMPLES and len(self._points) > 1:
            self._forget()

    def since(self, serial: int) -> list[Point]:
        """The points after that one, oldest first; all of them after 0."""
        return [point for point in self._points if point.serial > serial]

    def _forget(self) -> None:
        old = self._points.popleft()
        self._samples -= len(old.sets) + len(old.cohorts)

    def _set_samples(self, sets: Mapping[str, SetStats], span_s: float) -> dict[str, Sample]:
        samples = {}
        before, self._sets = self._sets, {}
        for name, stats in sets.items():
            old = before.get(name)
            attempts, errors = stats.attempts, stats.errors
            if old is not None and old[1:3] == (attempts, errors):
                self._sets[name] = old
                continue
            new = self._sets[name] = stats.answers, attempts, errors, tuple(stats.durations)
            if old is None:
                old = 0, 0, 0, (0,) * len(new[3])
            window = Window(
                span_s,
                new[0] - old[0],
                attempts - old[1],
                errors - old[2],
                tuple(a - b for a, b in zip(new[3], old[3], strict=True)),
            )
            if window.attempts > 0:
                quantiles = [_ms(window.quantile_s(share), 1000.0) for share in (0.5, 0.95, 0.99)]
                samples[name] = Sample(window.attempts, window.errors, *quantiles)
        return samples

    def _cohort_samples(self, cohorts: Cohorts | None) -> dict[str, Sample]:
        before, self._cohorts = self._cohorts, {}
        gained = {name: minus(tally, copy) for name, (tally, copy) in before.items()}
        if cohorts is not None:
            for name, tally in (("canary", cohorts.canary), ("control", cohorts.control)):
                self._cohorts[name] = tally, tally.copy()
                if name not in before or tally is not before[name][0]:
                    # What the one before saw last, as of a canary that failed just now, counts too.
                    gained[name] = total([*([gained[name]] if name in gained else []), tally])
        samples = {}
        for name, new in gained.items():
            if new.judged > 0:
                quantiles = [_ms(new.quantile_us(share), 0.001) for share in (0.5, 0.95, 0.99)]
                samples[name] = Sample(new.judged, new.error, *quantiles)
        return samples


def _ms(value: float | None, times: float) -> float | None:
    return None if value is None else round(value * times, 3)
