"""The last quarter of an hour as points: differences of counts, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from router.counting.curves import MAX_SAMPLES, SPAN_S, STEP_S, Curves
from router.counting.stats import SetStats
from router.counting.tally import Outcome, Tally
from router.wire.failure import Failure


@dataclass
class Cohorts:
    canary: Tally = field(default_factory=Tally)
    control: Tally = field(default_factory=Tally)


def answered(stats: SetStats, count: int, status: int = 200, duration_s: float = 0.01) -> None:
    for _ in range(count):
        stats.note_answer(status, duration_s)


def test_a_point_holds_what_came_since_the_one_before() -> None:
    curves, a = Curves(), SetStats()
    answered(a, 50)
    curves.tick(100.0, {"a": a})
    assert curves.since(0) == []  # What was before the first look has no known time.
    answered(a, 9, duration_s=0.010)
    answered(a, 1, status=500, duration_s=1.0)
    a.note_failure(Failure.CONNECT)
    curves.tick(102.0, {"a": a})
    assert curves.since(0) == []
    curves.tick(105.5, {"a": a})
    (point,) = curves.since(0)
    assert (point.serial, point.ended, point.span_s) == (1, 105.5, 5.5)
    sample = point.sets["a"]
    assert (sample.requests, sample.errors) == (11, 2)
    assert sample.p50_ms == pytest.approx(10, rel=0.2)
    assert sample.p99_ms == pytest.approx(1000, rel=0.2)


def test_who_did_nothing_is_not_in_the_point() -> None:
    curves, a, b = Curves(), SetStats(), SetStats()
    curves.tick(0.0, {"a": a, "b": b})
    answered(b, 1)
    curves.tick(STEP_S, {"a": a, "b": b})
    curves.tick(2 * STEP_S, {"a": a, "b": b})
    busy, idle = curves.since(0)
    assert list(busy.sets) == ["b"]
    assert dict(idle.sets) == {}


def test_a_set_that_is_new_counts_from_its_beginning_and_one_that_left_no_more() -> None:
    curves, a, b = Curves(), SetStats(), SetStats()
    curves.tick(0.0, {"a": a})
    answered(a, 2)
    answered(b, 3)
    curves.tick(5.0, {"a": a, "b": b})
    curves.tick(10.0, {"b": b})
    first, second = curves.since(0)
    assert {name: sample.requests for name, sample in first.sets.items()} == {"a": 2, "b": 3}
    assert dict(second.sets) == {}


def test_only_attempts_without_an_answer_have_no_latency() -> None:
    curves, a = Curves(), SetStats()
    curves.tick(0.0, {"a": a})
    a.note_failure(Failure.RESET)
    curves.tick(5.0, {"a": a})
    sample = curves.since(0)[0].sets["a"]
    assert (sample.requests, sample.errors, sample.p50_ms, sample.p95_ms) == (1, 1, None, None)


def test_cohorts_and_the_last_that_a_failed_canary_was_seen_to_do() -> None:
    curves, cohorts = Curves(), Cohorts()
    curves.tick(0.0, {}, cohorts)
    cohorts.control.note(Outcome.OK, 5_000)
    cohorts.canary.note(Outcome.OK, 5_000)
    cohorts.canary.note(Outcome.SHED)
    curves.tick(5.0, {}, cohorts)
    for _ in range(4):
        cohorts.canary.note(Outcome.ERROR, 80_000)
    # The weight changed: other tallies. Then the rollout ended: none.
    cohorts.canary, cohorts.control = Tally(), Tally()
    cohorts.control.note(Outcome.OK, 5_000)
    curves.tick(10.0, {}, cohorts)
    cohorts.canary.note(Outcome.OK, 5_000)
    curves.tick(15.0, {}, None)
    curves.tick(20.0, {}, None)
    seen = [
        {name: (sample.requests, sample.errors) for name, sample in point.cohorts.items()}
        for point in curves.since(0)
    ]
    assert seen == [
        {"canary": (1, 0), "control": (1, 0)},
        {"canary": (4, 4), "control": (1, 0)},
        {"canary": (1, 0)},
        {},
    ]
    failed = curves.since(1)[0].cohorts["canary"]
    assert failed.p95_ms == pytest.approx(80, rel=0.03)


def test_a_page_asks_for_what_it_lacks() -> None:
    curves, a = Curves(), SetStats()
    for index in range(4):
        answered(a, index)
        curves.tick(index * STEP_S, {"a": a})
    assert [point.serial for point in curves.since(1)] == [2, 3]
    assert curves.since(curves.serial) == []
    assert curves.since(99) == []


def test_the_past_is_bounded() -> None:
    curves, a = Curves(), SetStats()
    for index in range(1000):
        answered(a, 1)
        curves.tick(index * STEP_S, {"a": a})
    points = curves.since(0)
    assert len(points) == SPAN_S / STEP_S
    assert points[-1].serial == curves.serial == 999


def test_many_busy_sets_shorten_the_past() -> None:
    curves = Curves()
    sets = {f"s{number}": SetStats() for number in range(200)}
    for index in range(100):
        for stats in sets.values():
            answered(stats, 1)
        curves.tick(index * STEP_S, sets)
    points = curves.since(0)
    assert sum(len(point.sets) for point in points) == MAX_SAMPLES
    assert points[-1].serial == 99
