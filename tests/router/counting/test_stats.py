"""Counts: what Prometheus is told, and the rates and quantiles of the last half minute."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.counting.stats import FINE_BOUNDS_S, LATENCY_BOUNDS_S, TICK_S, WINDOW_S, Recent, SetStats
from router.wire.failure import Failure


@given(st.lists(st.floats(0, 5000), max_size=50))
def test_the_coarse_counts_are_those_of_the_coarse_bounds(durations: list[float]) -> None:
    stats = SetStats()
    for duration in durations:
        stats.note_answer(200, duration)
    cumulative = 0
    for bound, count in zip(LATENCY_BOUNDS_S, stats.latency, strict=False):
        cumulative += count
        assert cumulative == sum(duration <= bound for duration in durations)
    assert sum(stats.latency) == len(durations)
    assert len(stats.latency) == len(LATENCY_BOUNDS_S) + 1
    assert list(FINE_BOUNDS_S) == sorted(FINE_BOUNDS_S)


def test_quantiles_are_right_to_a_tenth() -> None:
    rng = random.Random(3)
    durations = sorted(rng.lognormvariate(-3, 1) for _ in range(5000))
    stats = SetStats()
    for duration in durations:
        stats.note_answer(200, duration)
    window = Recent().window("a", 0.0, stats)
    for share in (0.5, 0.95, 0.99):
        exact = durations[int(share * len(durations)) - 1]
        assert window.quantile_s(share) == pytest.approx(exact, rel=0.1)


def test_rates_are_those_of_the_last_half_minute() -> None:
    recent, stats = Recent(), SetStats()
    now = 0.0
    while now < 60:
        recent.tick(now, {"a": stats})
        stats.note_answer(500 if now < 20 else 200, 0.010)
        if now >= 50:
            stats.note_failure(Failure.RESET)
        now += 1.0
    window = recent.window("a", now, stats)
    assert WINDOW_S - TICK_S <= window.span_s <= WINDOW_S + TICK_S
    assert window.requests_per_s == pytest.approx(1.0, abs=0.1)
    assert window.errors == 10
    assert window.error_rate == pytest.approx(10 / (window.answers + 10))
    assert window.quantile_s(0.5) == pytest.approx(0.010, rel=0.15)


def test_nothing_to_tell_is_told_as_nothing() -> None:
    window = Recent().window("a", 5.0, SetStats())
    assert (window.requests_per_s, window.error_rate, window.quantile_s(0.5)) == (0.0, None, None)


def test_windows_of_several_processes_add_up() -> None:
    recent = Recent()
    one, two = SetStats(), SetStats()
    recent.tick(0.0, {"a": one})
    for _ in range(10):
        one.note_answer(200, 0.001)
        two.note_answer(502, 1.0)
    both = recent.window("a", 10.0, one) + recent.window("b", 10.0, two)
    assert (both.answers, both.errors, both.requests_per_s) == (20, 10, 2.0)
    assert both.quantile_s(0.99) == pytest.approx(1.0, rel=0.2)


def test_idle_sets_cost_no_memory() -> None:
    recent, stats = Recent(), SetStats()
    for now in range(0, 300, 3):
        recent.tick(float(now), {"a": stats})
    copies = [copy["a"] for _, copy in recent._copies]
    assert len(copies) <= WINDOW_S / TICK_S + 1
    assert len({id(copy) for copy in copies}) == 1
