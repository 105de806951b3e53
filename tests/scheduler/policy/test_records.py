"""A store that refuses records, in virtual time: how long one is tried, and for how long new tasks are refused."""

from __future__ import annotations

import pytest

from scheduler.errors import DiskFull, StoreError
from scheduler.policy.records import REFUSE_S, Refusals


def test_a_record_is_tried_less_and_less_often_and_given_up_before_its_patience_ends() -> None:
    refusals = Refusals(patience_s=5.0)
    now, tries = 100.0, 1
    pauses_s = []
    while (pause_s := refusals.refused(DiskFull(), tries, 100.0, now)) is not None:
        pauses_s.append(pause_s)
        now += pause_s
        tries += 1
    assert pauses_s == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert now <= 105.0


def test_tries_that_take_long_use_up_the_patience_too() -> None:
    refusals = Refusals(patience_s=5.0)
    assert refusals.refused(StoreError(), 1, 100.0, 100.0) == 0.05
    assert refusals.refused(StoreError(), 2, 100.0, 104.95) is None


def test_new_tasks_are_refused_for_a_moment_after_each_refusal() -> None:
    refusals = Refusals()
    refusals.check(100.0)
    refusals.refused(DiskFull("the set's disk is full"), 1, 100.0, 100.0)
    with pytest.raises(DiskFull, match="the set's disk is full"):
        refusals.check(100.0 + REFUSE_S - 0.01)
    refusals.check(100.0 + REFUSE_S)
    refusals.refused(StoreError("the disk does not answer"), 2, 100.0, 102.0)
    with pytest.raises(StoreError, match="does not answer") as raised:
        refusals.check(102.5)
    assert not isinstance(raised.value, DiskFull)


def test_a_record_that_is_written_ends_the_refusal_at_once() -> None:
    refusals = Refusals()
    refusals.refused(DiskFull(), 1, 100.0, 100.0)
    refusals.written()
    refusals.check(100.0)
