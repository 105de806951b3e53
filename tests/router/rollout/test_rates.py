"""The sequential test for rates, by simulation with fixed seeds: it may be evaluated at any time."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rollout.rates import difference
from tests.router.rollout.release import SEEDED


def peeked(
    canary: float, control: float, *, threshold: float, alpha: float, requests: int, every: int, seed: int
) -> int | None:
    """Two streams, looked at again and again: after how many requests a side the lower bound passes the threshold."""
    rng = random.Random(seed)
    hits = base_hits = 0
    for number in range(1, requests + 1):
        hits += rng.random() < canary
        base_hits += rng.random() < control
        if number % every == 0 and hits / number - base_hits / number > threshold:
            # Below the threshold itself the lower bound cannot be above it: no need to work it out.
            low = difference(hits, number, base_hits, number, alpha_low=alpha, alpha_high=0.1).low
            if low > threshold:
                return number
    return None


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.4])
def test_equal_sets_looked_at_over_and_over_are_told_apart_no_more_often_than_allowed(rate: float) -> None:
    """60 releases of 600 requests, evaluated 60 times each, at α = 20 % so that some errors occur. A test that is
    evaluated like this but made for one evaluation would err in more than half of them."""
    wrong = [
        peeked(rate, rate, threshold=0.0, alpha=0.2, requests=600, every=10, seed=seed) for seed in range(60)
    ]
    assert sum(found is not None for found in wrong) <= 12


@pytest.mark.parametrize(
    ("canary", "control", "requests"),
    [
        (1.0, 0.0, 20),  # everything fails
        (0.5, 0.01, 60),
        (0.1, 0.01, 600),
        (0.1, 0.05, 8_000),  # twice the rate, three points over what is allowed
    ],
)
def test_a_sick_canary_is_found_in_time(canary: float, control: float, requests: int) -> None:
    """At the α of a rollout of four steps (5 % / 12), two points allowed: four in five at least."""
    found = [
        peeked(
            canary,
            control,
            threshold=0.02,
            alpha=0.05 / 12,
            requests=requests,
            every=max(10, requests // 200),
            seed=seed,
        )
        for seed in range(20)
    ]
    assert sum(at is not None for at in found) >= 16


def test_what_is_allowed_is_not_found_sick() -> None:
    """One point worse where two are allowed."""
    wrong = [
        peeked(0.03, 0.02, threshold=0.02, alpha=0.05, requests=2_000, every=50, seed=seed)
        for seed in range(40)
    ]
    assert sum(found is not None for found in wrong) <= 2


def test_no_errors_at_all_are_proof_of_two_points_after_some_three_hundred_requests() -> None:
    assert difference(0, 200, 0, 200, alpha_low=0.004, alpha_high=0.1).high > 0.02
    assert difference(0, 350, 0, 350, alpha_low=0.004, alpha_high=0.1).high < 0.02


def test_no_data_says_nothing() -> None:
    assert difference(0, 0, 0, 0, alpha_low=0.05, alpha_high=0.1) == (-1.0, 1.0)
    assert difference(5, 5, 0, 0, alpha_low=0.05, alpha_high=0.1) == (-1.0, 1.0)


@SEEDED
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_the_interval_holds_the_estimate_and_is_symmetric(a: int, b: int, c: int, d: int) -> None:
    hits, misses, base_hits, base_misses = a, b + 1, c, d + 1
    of, base_of = hits + misses, base_hits + base_misses
    low, high = difference(hits, of, base_hits, base_of, alpha_low=0.05, alpha_high=0.05)
    estimate = hits / of - base_hits / base_of
    assert -1.0 <= low <= estimate <= high <= 1.0
    swapped = difference(base_hits, base_of, hits, of, alpha_low=0.05, alpha_high=0.05)
    assert swapped.low == pytest.approx(-high, abs=1e-6)
    assert swapped.high == pytest.approx(-low, abs=1e-6)


def test_more_of_the_same_narrows_it() -> None:
    widths = []
    for times in (1, 4, 16, 64):
        low, high = difference(3 * times, 50 * times, 2 * times, 50 * times, alpha_low=0.05, alpha_high=0.05)
        widths.append(high - low)
    assert all(narrower < wider for wider, narrower in pairwise(widths))
