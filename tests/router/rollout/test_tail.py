"""The comparison of 95th percentiles, by simulation with fixed seeds."""

from __future__ import annotations

import random
from math import inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.counting.tally import Outcome, Tally, bucket_of
from router.rollout.tail import ratio
from tests.router.rollout.release import SEEDED


def lumpy(rng: random.Random) -> float:
    """Milliseconds of a small image, most often; seconds of a large one."""
    if rng.random() < 0.9:
        return rng.lognormvariate(log(5_000), 0.4)
    return rng.lognormvariate(log(900_000), 0.3)


def smooth(rng: random.Random) -> float:
    return rng.lognormvariate(log(20_000), 0.5)


def peeked(
    slower: float, shape: str, *, threshold: float, alpha: float, requests: int, seed: int
) -> int | None:
    """After how many requests a side the lower bound passes the threshold, looked at every 50."""
    rng = random.Random(seed)
    draw = lumpy if shape == "lumpy" else smooth
    canary: dict[int, int] = {}
    control: dict[int, int] = {}
    for number in range(1, requests + 1):
        for counts, factor in ((canary, slower), (control, 1.0)):
            bucket = bucket_of(draw(rng) * factor)
            counts[bucket] = counts.get(bucket, 0) + 1
        if number % 50 == 0 and ratio(canary, control, alpha_low=alpha, alpha_high=0.1).low > threshold:
            return number
    return None


@pytest.mark.parametrize("shape", ["smooth", "lumpy"])
def test_equal_sets_looked_at_over_and_over_are_told_apart_no_more_often_than_allowed(shape: str) -> None:
    """α = 20 %, 60 releases of 2,000 requests, 40 looks each."""
    wrong = [peeked(1.0, shape, threshold=0.0, alpha=0.2, requests=2_000, seed=seed) for seed in range(60)]
    assert sum(found is not None for found in wrong) <= 12


@pytest.mark.parametrize(
    ("slower", "shape", "requests"),
    [(10.0, "smooth", 200), (2.0, "smooth", 800), (2.0, "lumpy", 1_500), (1.6, "smooth", 3_000)],
)
def test_a_slow_canary_is_found_in_time(slower: float, shape: str, requests: int) -> None:
    """A quarter more is allowed; the α of a rollout of four steps. Four in five at least."""
    found = [
        peeked(slower, shape, threshold=0.25, alpha=0.05 / 12, requests=requests, seed=seed)
        for seed in range(15)
    ]
    assert sum(at is not None for at in found) >= 12


def test_a_little_slower_than_control_is_allowed() -> None:
    wrong = [
        peeked(1.15, "smooth", threshold=0.25, alpha=0.05, requests=3_000, seed=seed) for seed in range(20)
    ]
    assert sum(found is not None for found in wrong) <= 1


def test_few_requests_bound_nothing() -> None:
    assert ratio({}, {}, alpha_low=0.05, alpha_high=0.1) == (-1.0, inf)
    few = {bucket_of(1000.0): 30}
    assert ratio(few, few, alpha_low=0.05, alpha_high=0.1) == (-1.0, inf)


def test_one_answer_of_an_hour_moves_nothing() -> None:
    quick = {bucket_of(2000.0): 500, bucket_of(2200.0): 500}
    with_one = {**quick, bucket_of(3.6e9): 1}
    plain = ratio(quick, quick, alpha_low=0.05, alpha_high=0.1)
    moved = ratio(with_one, quick, alpha_low=0.05, alpha_high=0.1)
    assert moved.low == pytest.approx(plain.low, abs=0.05)
    assert moved.high == pytest.approx(plain.high, abs=0.05)


@SEEDED
@given(st.lists(st.floats(1e3, 1e9), min_size=1, max_size=200))
def test_a_sketch_is_exact_to_a_bucket(latencies: list[float]) -> None:
    tally = Tally()
    for latency in latencies:
        tally.note(Outcome.OK, latency)
    exact = sorted(latencies)[max(0, -(-95 * len(latencies) // 100) - 1)]
    found = tally.quantile_us(0.95)
    assert found is not None
    assert exact / 1.023 <= found <= exact * 1.023
    assert len(tally.latencies) <= 1024


@SEEDED
@given(st.dictionaries(st.integers(0, 1023), st.integers(1, 400), min_size=1, max_size=40))
def test_a_set_against_itself_is_never_surely_different(counts: dict[int, int]) -> None:
    low, high = ratio(counts, counts, alpha_low=0.05, alpha_high=0.05)
    assert low <= 0.0 <= high


def test_below_a_millisecond_nobody_is_quicker() -> None:
    assert bucket_of(0.0) == bucket_of(20.0) == bucket_of(1000.0) < bucket_of(1100.0)


@SEEDED
@given(
    st.dictionaries(st.integers(400, 460), st.integers(1, 400), min_size=1, max_size=20),
    st.dictionaries(st.integers(400, 460), st.integers(1, 400), min_size=1, max_size=20),
)
def test_it_is_symmetric_and_asks_more_of_a_smaller_alpha(a: dict[int, int], b: dict[int, int]) -> None:
    one, other = (
        ratio(a, b, alpha_low=0.05, alpha_high=0.05),
        ratio(b, a, alpha_low=0.05, alpha_high=0.05),
    )
    assert one.low == -1.0 or 1 / (1 + one.low) == pytest.approx(1 + other.high)
    assert (one.low == -1.0) == (other.high == inf)
    strict = ratio(a, b, alpha_low=0.005, alpha_high=0.005)
    assert strict.low <= one.low
    assert strict.high >= one.high
