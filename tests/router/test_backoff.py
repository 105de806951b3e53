"""Pauses double, and stop growing."""

from __future__ import annotations

from router.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    assert [Backoff(0.5, 3.0).after(failures) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_any_number_of_failures_is_fine() -> None:
    assert Backoff(0.01, 30.0).after(1_000_000) == 30.0
