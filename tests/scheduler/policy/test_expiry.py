"""When rows and blobs are removed, over days of virtual time."""

from __future__ import annotations

from scheduler.policy.cell import Cell
from scheduler.policy.decisions import Decision, ExpireRows, SweepBlobs
from scheduler.policy.expiry import SWEEP_AGE_S, SWEEP_EVERY_S, Expiry
from scheduler.policy.limits import Limits, number_slots


def rows(decisions: list[Decision]) -> list[Decision]:
    return [decision for decision in decisions if isinstance(decision, ExpireRows)]


def test_the_store_is_asked_at_the_start_and_then_again_and_again() -> None:
    cell = Cell(Limits(), number_slots("s"), expiry=Expiry(5.0))
    assert rows(cell.opened(100.0)) == [ExpireRows(2)]
    assert cell.wake_at == 105.0
    assert cell.wake(105.0) == [ExpireRows(2)]
    for _ in range(3_000):
        cell.task_ended()
    assert cell.wake(cell.wake_at) == [ExpireRows(8)]
    assert cell.wake(cell.wake_at) == [ExpireRows(2)]
    assert cell.wake_at == 120.0


def test_blobs_are_swept_at_the_start_and_then_daily() -> None:
    """At first what is older than this run; later what has had an hour to get its row."""
    cell = Cell(Limits(), number_slots("s"), expiry=Expiry(10 * SWEEP_EVERY_S))
    assert SweepBlobs(None) in cell.opened(100.0)
    for day in (1, 2, 3):
        assert cell.wake_at == 100.0 + day * SWEEP_EVERY_S
        assert cell.wake(cell.wake_at) == [SweepBlobs(SWEEP_AGE_S)]


def test_a_cell_without_expiry_asks_for_none() -> None:
    cell = Cell(Limits(), number_slots("s"))
    cell.task_ended()
    assert cell.opened(0.0) == []
    assert cell.wake_at == float("inf")
