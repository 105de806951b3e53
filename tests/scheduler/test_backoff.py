"""Pauses double, and stop growing."""

from __future__ import annotations

from itertools import islice

from scheduler.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0)
    assert list(islice(backoff, 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert [backoff.after(failures) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_any_number_of_failures_is_fine() -> None:
    assert Backoff(0.01, 30.0).after(1_000_000) == 30.0


def test_a_first_pause_above_the_longest_is_the_longest() -> None:
    backoff = Backoff(60.0, 30.0)
    assert (backoff.after(1), next(iter(backoff))) == (30.0, 30.0)
