"""The sequential test that fails a canary, by simulation with fixed seeds."""

from __future__ import annotations

import random
from math import inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rollout.eprocess import FEWEST_HITS, NOTHING, Counts, EProcess
from tests.router.rollout.release import SEEDED


def release(
    canary: float,
    control: float,
    *,
    share: float,
    requests: int,
    seed: int,
    margin: float = 0.02,
    alpha: float = 1 / 640,
    every: int = 20,
    drift: float = 0.0,
) -> int | None:
    """Requests of the canary until it fails, looked at every `every` requests of both, in slices of 300. `drift`: by
    how much both rates grow over the release."""
    rng = random.Random(seed)
    process = EProcess(margin)
    hits = of = base_hits = base_of = total = 0
    for number in range(1, int(requests / share) + 1):
        more = drift * number * share / requests
        if rng.random() < share:
            of += 1
            total += 1
            hits += rng.random() < canary + more
        else:
            base_of += 1
            base_hits += rng.random() < control + more
        slice_ = Counts(hits, of, base_hits, base_of)
        if number % every == 0 and process.evidence(slice_) >= -log(alpha):
            return total
        if number % 300 == 0:
            process.close(slice_)
            hits = of = base_hits = base_of = 0
    return None


@pytest.mark.parametrize(("control", "share"), [(0.005, 0.05), (0.005, 0.5), (0.1, 0.25), (0.4, 0.25)])
def test_a_canary_that_is_worse_by_just_the_margin_fails_no_more_often_than_allowed(
    control: float, share: float
) -> None:
    """α = 20 %, to see anything: 40 releases, looked at over and over."""
    wrong = [
        release(control + 0.02, control, share=share, requests=400, seed=seed, alpha=0.2)
        for seed in range(40)
    ]
    assert sum(found is not None for found in wrong) <= 8


def test_rates_that_both_move_are_no_harm() -> None:
    """An hour in which everything gets worse, from 1 % to 21 % of errors at both."""
    wrong = [
        release(0.03, 0.01, share=0.25, requests=400, seed=seed, alpha=0.2, drift=0.2) for seed in range(30)
    ]
    assert sum(found is not None for found in wrong) <= 6


@pytest.mark.parametrize(
    ("canary", "share", "within"),
    [(1.0, 0.05, 10), (0.205, 0.05, 80), (0.055, 0.05, 800), (0.055, 0.5, 1_000)],
)
def test_a_sick_canary_fails_within_so_many_of_its_requests(canary: float, share: float, within: int) -> None:
    """Half of the releases at least; 0.5 % errors at control."""
    found = [release(canary, 0.005, share=share, requests=within, seed=seed) for seed in range(11)]
    assert sum(at is not None for at in found) >= 6


def test_a_few_failed_requests_are_no_evidence_and_one_more_may_be() -> None:
    process = EProcess(0.02)
    assert process.evidence(Counts(FEWEST_HITS - 1, FEWEST_HITS - 1, 0, 150)) == -inf
    assert process.evidence(Counts(FEWEST_HITS, FEWEST_HITS, 0, 150)) > log(640)


def test_without_control_nothing_is_evidence() -> None:
    process = EProcess(0.02)
    assert process.evidence(Counts(50, 50, 0, 0)) == -inf
    process.close(Counts(50, 50, 0, 0))
    assert process.evidence(NOTHING) == -inf


def test_where_control_fails_always_nothing_is_worse() -> None:
    process = EProcess(0.02)
    for _ in range(20):
        process.close(Counts(15, 15, 285, 285))
    assert process.evidence(Counts(15, 15, 285, 285)) == -inf


@SEEDED
@given(st.lists(st.tuples(*(st.integers(0, 200),) * 4), max_size=6), st.sampled_from([0.0, 0.005, 0.02, 0.5]))
def test_any_counts_give_a_number(slices: list[tuple[int, int, int, int]], margin: float) -> None:
    process = EProcess(margin)
    for hits, misses, base_hits, base_misses in slices:
        slice_ = Counts(hits, hits + misses, base_hits, base_hits + base_misses)
        assert process.evidence(slice_) < inf
        process.close(slice_)
    assert process.known.of == sum(hits + misses for hits, misses, *_ in slices)


def test_requests_that_come_in_clumps_are_less_evidence() -> None:
    process = EProcess(0.02)
    seen = Counts(12, 15, 1, 285)
    found = [process.evidence(seen, clump=clump) for clump in (1.0, 2.0, 4.0)]
    assert found == sorted(found, reverse=True)
    assert found[2] < found[0] / 3
