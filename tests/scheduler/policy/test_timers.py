"""Timers without a clock: what is due when, and that cancelling costs nothing later."""

from __future__ import annotations

from random import Random

from scheduler.policy.timers import LENGTHS_SWEPT_AT, Timers


def due(timers: Timers[str], now: float) -> list[str]:
    return [timer.what for timer in timers.due(now)]


def test_they_are_due_in_order_whatever_their_length() -> None:
    timers: Timers[float] = Timers()
    chance = Random(1)
    now = 0.0
    for _ in range(500):
        now += chance.choice([0.0, 0.1, 1.0])
        delay_s = chance.choice([0.0, 0.5, 5.0, 60.0])
        timers.set(delay_s, now, now + delay_s)
    came: list[float] = []
    while timers.next_at < float("inf"):
        at = timers.next_at
        found = [timer.what for timer in timers.due(at)]
        assert found == [at] * len(found)
        came += found
    assert len(came) == 500
    assert came == sorted(came)


def test_next_at_is_the_first_of_all() -> None:
    timers: Timers[str] = Timers()
    assert timers.next_at == float("inf")
    timers.set(60.0, 0.0, "late")
    timers.set(1.0, 10.0, "early")
    assert timers.next_at == 11.0
    assert due(timers, 10.9) == []
    assert due(timers, 11.0) == ["early"]
    assert timers.next_at == 60.0


def test_a_cancelled_one_is_never_due() -> None:
    timers: Timers[str] = Timers()
    first = timers.set(1.0, 0.0, "first")
    timers.set(1.0, 0.0, "second")
    first.cancel()
    first.cancel()
    assert due(timers, 5.0) == ["second"]
    assert timers.next_at == float("inf")


def test_one_that_is_cancelled_when_it_is_due_says_so() -> None:
    timers: Timers[str] = Timers()
    timer = timers.set(1.0, 0.0, "first")
    (found,) = timers.due(1.0)
    timer.cancel()
    assert found.cancelled


def test_lengths_that_are_no_longer_used_are_forgotten() -> None:
    timers: Timers[str] = Timers()
    for number in range(20 * LENGTHS_SWEPT_AT):
        timers.set(100.0 + number, 0.0, "once").cancel()
    assert len(timers._lines) <= LENGTHS_SWEPT_AT
