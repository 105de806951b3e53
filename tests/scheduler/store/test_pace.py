"""The times of commits: at once on a quiet set, in steps on a busy one."""

from __future__ import annotations

import pytest

from scheduler.store.pace import INTERVAL_MAX_S, TASKS_PER_COMMIT, WINDOW_S, Pace


def after(rate_per_s: float) -> tuple[Pace, float]:
    """The pace of a store whose tasks came one by one for ten windows, and the moment of the last."""
    pace, now = Pace(), 100.0
    for _ in range(int(10 * WINDOW_S * rate_per_s)):
        now += 1 / rate_per_s
        pace.began(1, now)
    return pace, now


def test_the_first_commit_does_not_wait() -> None:
    assert Pace().wait_s(100.0) == 0


@pytest.mark.parametrize("rate_per_s", [1, 100, 1000])
def test_a_quiet_store_does_not_wait(rate_per_s: float) -> None:
    pace, now = after(rate_per_s)
    assert pace.wait_s(now) == pace.wait_s(now + 1 / rate_per_s) == 0


@pytest.mark.parametrize("rate_per_s", [1500, 5000, 50_000])
def test_a_busy_store_waits_for_some_tasks_but_never_long(rate_per_s: float) -> None:
    pace, now = after(rate_per_s)
    assert 0 < pace.wait_s(now) <= INTERVAL_MAX_S
    assert pace.wait_s(now) * rate_per_s == pytest.approx(TASKS_PER_COMMIT, rel=0.1)
    assert pace.wait_s(now + INTERVAL_MAX_S) == 0, "so long after the last commit it begins at once"


def test_ends_alone_keep_no_store_busy() -> None:
    pace, now = after(5000)
    for _ in range(100):
        now += 0.01
        pace.began(0, now)
    assert pace.wait_s(now) == 0
