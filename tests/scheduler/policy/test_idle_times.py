"""What is learnt from idle times: in which parts of one a slot is worth its place."""

from __future__ import annotations

from random import Random

import pytest

from scheduler.policy.idle_times import COUNTED_MOST, GONE_MOST, REMEMBERED_MOST, IdleTimes, Remembered
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources

KEEP_S = 600.0
MINUTE_S = 60.0


def learnt(idle_s: list[float]) -> IdleTimes:
    times = IdleTimes(KEEP_S)
    for each in idle_s:
        times.ended(each)
        times.learn()
    return times


def cost_s(times: IdleTimes, idle_s: list[float]) -> float:
    """What a slot costs: the time for which it is there, and `KEEP_S` for each task that finds none."""
    total_s = 0.0
    for each in idle_s:
        total_s += sum(min(ends, each) - begins for begins, ends in times.spans if begins < each)
        total_s += 0.0 if times.is_wanted(each) else KEEP_S
    return total_s


def test_nothing_is_known_of_a_new_pool() -> None:
    times = learnt([])
    assert times.spans == ((0.0, KEEP_S),)
    assert times.is_usual


def test_a_pool_that_is_used_every_hour_has_a_slot_around_the_hour_only() -> None:
    times = learnt([3_599.0] * 8)
    assert times.is_wanted(3_599.0)
    assert not any(times.is_wanted(minute * MINUTE_S) for minute in range(2, 55))
    assert sum(ends - begins for begins, ends in times.spans) <= 8 * MINUTE_S


def test_a_pool_that_is_used_every_minute_or_so_keeps_its_slot() -> None:
    chance = Random(1)
    times = learnt([chance.expovariate(1 / MINUTE_S) for _ in range(200)])
    assert times.first_s >= 5 * MINUTE_S


def test_a_pool_that_is_used_in_sessions_keeps_its_slot_for_the_length_of_a_pause() -> None:
    chance = Random(2)
    times = learnt([chance.uniform(1, 50) if n % 8 else chance.uniform(7_200, 12_000) for n in range(200)])
    assert times.is_wanted(30.0)
    assert times.first_s <= 2 * MINUTE_S


def test_idle_times_beyond_the_histogram_are_waited_for_by_nobody() -> None:
    times = learnt([86_400.0] * 6)
    assert times.spans == () or times.first_s <= MINUTE_S
    assert not times.is_wanted(86_400.0)


@pytest.mark.parametrize(
    "mean_s", [pytest.param(mean_s, id=f"mean {mean_s} s") for mean_s in (60, 300, 600, 1_200, 3_600)]
)
def test_idle_times_without_a_pattern_cost_hardly_more_than_a_fixed_time(mean_s: int) -> None:
    chance = Random(mean_s)
    seen = [[chance.expovariate(1 / mean_s) for _ in range(60)] for _ in range(10)]
    with_it = without = 0.0
    for idle_s in seen:
        times, fixed = IdleTimes(KEEP_S), IdleTimes(KEEP_S)
        for each in idle_s:
            with_it += cost_s(times, [each])
            without += cost_s(fixed, [each])
            times.ended(each)
            times.learn()
    assert with_it <= 1.06 * without


def test_a_pool_that_changes_is_learnt_again() -> None:
    times = learnt([899.0] * 40)
    assert not times.is_wanted(300.0)
    for _ in range(60):
        times.ended(299.0)
        times.learn()
    assert times.is_wanted(299.0)


def test_what_is_remembered_is_bounded() -> None:
    times = IdleTimes(KEEP_S)
    for number in range(3 * COUNTED_MOST):
        times.ended(float(number % 500))
        times.left(float(number))
    assert len(times.gone) == GONE_MOST
    times.learn()
    assert times.first_s > 0.0


def test_a_slot_that_left_and_is_not_missed_for_long_is_forgotten() -> None:
    times = IdleTimes(KEEP_S)
    times.left(0.0)
    assert times.wanted(KEEP_S) == 0
    assert times.gone == [0.0]
    assert times.wanted(1e6) == 0
    assert times.gone == []


def test_pools_that_are_forgotten_are_remembered_up_to_a_bound() -> None:
    remembered = Remembered()
    keys = [
        PoolKey("acme", f"sha256:{number}", Resources(100, 512), Isolation.SHARED)
        for number in range(REMEMBERED_MOST + 1)
    ]
    remembered.keep(keys[0], IdleTimes(KEEP_S))
    assert len(remembered) == 0, "there is nothing to remember of a pool that was never used"
    times = learnt([60.0])
    for key in keys:
        remembered.keep(key, times)
    assert len(remembered) == REMEMBERED_MOST
    assert remembered.take(keys[0]) is None
    assert remembered.take(keys[-1]) is times
    assert remembered.take(keys[-1]) is None
