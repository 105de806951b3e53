"""Pauses double, and stop growing."""

from __future__ import annotations

from itertools import islice

from scheduler.backoff import SPREAD_STEPS, Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0)
    assert list(islice(backoff, 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert [backoff.after(failures) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_pauses_are_spread_by_key_over_the_upper_half() -> None:
    backoff = Backoff(0.5, 3.0)
    pauses = [backoff.spread(2, f"a-{number}") for number in range(1000)]
    assert pauses == [backoff.spread(2, f"a-{number}") for number in range(1000)]
    assert 0.5 < min(pauses) < 0.6
    assert 0.9 < max(pauses) <= 1.0
    # Each length has a queue of timers of its own.
    assert len(set(pauses)) == SPREAD_STEPS
    assert all(backoff.spread(50, f"a-{number}") <= 3.0 for number in range(100))


def test_any_number_of_failures_is_fine() -> None:
    assert Backoff(0.01, 30.0).after(1_000_000) == 30.0


def test_a_first_pause_above_the_longest_is_the_longest() -> None:
    backoff = Backoff(60.0, 30.0)
    assert (backoff.after(1), next(iter(backoff))) == (30.0, 30.0)
