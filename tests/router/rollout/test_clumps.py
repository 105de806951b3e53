"""How strongly slow requests clump, by simulation with fixed seeds."""

from __future__ import annotations

import random
from collections import Counter
from math import exp, log, sqrt

import pytest

from router.counting.tally import bucket_of
from router.rollout.clumps import MAX_SLICES, MEMORY_S, Clumps, RateClumps, Scatter
from router.rollout.lately import SLICE_S

NONE_SEEN_S = MEMORY_S * 0.076


def clump_s(slices: int, *, wander: float, seed: int, requests: int = 285) -> float:
    """The clump after this many slices of a canary at 5 % and its control, each of which wanders by itself with a
    memory of a minute."""
    rng = random.Random(seed)
    clumps = Clumps()
    states = [rng.gauss(0.0, wander), rng.gauss(0.0, wander)]
    kept = exp(-SLICE_S / 60.0)
    for _ in range(slices):
        states = [kept * state + rng.gauss(0.0, wander * sqrt(1 - kept * kept)) for state in states]
        canary, control = (
            Counter(bucket_of(rng.lognormvariate(log(20_000) + state, 0.5)) for _ in range(count))
            for state, count in zip(states, (requests // 19, requests), strict=True)
        )
        clumps.add(canary, control)
    return clumps.clump_s


def test_a_set_that_nobody_saw_yet_is_supposed_to_wander() -> None:
    assert Clumps().clump_s == pytest.approx(NONE_SEEN_S)


def test_independent_requests_clump_less_the_longer_one_looks() -> None:
    soon = [clump_s(4, wander=0.0, seed=seed) for seed in range(8)]
    late = [clump_s(40, wander=0.0, seed=seed) for seed in range(8)]
    assert max(soon) < 0.6 * NONE_SEEN_S
    assert max(late) < 0.1 * NONE_SEEN_S


def test_requests_of_a_set_that_wanders_clump_for_some_seconds() -> None:
    found = [clump_s(40, wander=0.3, seed=seed) for seed in range(12)]
    assert min(found) > 2.0
    assert 4.0 < sum(found) / len(found) < 16.0


def test_what_an_earlier_step_taught_is_kept() -> None:
    rng = random.Random(1)
    quick = Counter(bucket_of(rng.lognormvariate(10.0, 0.5)) for _ in range(300))
    first = Clumps()
    for _ in range(20):
        first.add(quick, quick)
    second = Clumps(first.scatter)
    assert second.clump_s == first.clump_s < 0.1 * NONE_SEEN_S


def test_a_slice_without_control_tells_nothing() -> None:
    clumps = Clumps()
    clumps.add({500: 40}, {})
    assert clumps.scatter == Scatter()


def test_slices_are_joined_where_there_are_many_and_nothing_is_lost() -> None:
    """At any length, a set that is slow every other minute clumps more than one that is slow at random."""
    rng = random.Random(2)
    steady, waves = Clumps(), Clumps()
    for number in range(4 * MAX_SLICES):
        slow = 60 if number // 4 % 2 else 0
        steady.add({}, {500: 270 + rng.randint(-5, 5), 600: 30})
        waves.add({}, {500: 300 - slow, 600: slow} if slow else {500: 300})
    assert waves.scatter.slices <= MAX_SLICES + 1
    assert waves.clump_s > 10 * steady.clump_s


def bursts(slices: int, *, error: float, seed: int) -> float:
    """The clump of errors after this many slices of a control that has 0.5 % of errors, and bursts of one slice every
    five minutes in which `error` fail."""
    rng = random.Random(seed)
    clumps = RateClumps()
    for _ in range(slices):
        chance = error if rng.random() < SLICE_S / 300.0 else 0.005
        clumps.add(sum(rng.random() < chance for _ in range(285)), 285)
    return clumps.clump_s


def test_errors_of_a_control_that_nobody_saw_yet_are_supposed_to_come_in_bursts() -> None:
    assert RateClumps().clump_s == pytest.approx(3.0)
    clumps = RateClumps()
    clumps.add(0, 0)
    assert clumps.clump_s == pytest.approx(3.0), "a slice without requests tells nothing"


def test_errors_that_come_by_themselves_clump_less_the_longer_one_looks() -> None:
    assert max(bursts(8, error=0.005, seed=seed) for seed in range(8)) < 1.2
    assert max(bursts(60, error=0.005, seed=seed) for seed in range(8)) < 0.3


def test_a_control_without_any_error_has_no_bursts() -> None:
    clumps = RateClumps()
    for _ in range(40):
        clumps.add(0, 285)
    assert clumps.clump_s < 0.2


def test_errors_in_bursts_clump_for_some_seconds() -> None:
    found = [bursts(40, error=0.2, seed=seed) for seed in range(12)]
    assert sum(each > 1.5 for each in found) >= 10
