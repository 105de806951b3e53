"""Limits that make no sense are refused where they are made; rows expire as fast as tasks end."""

from __future__ import annotations

import pytest

from scheduler.policy.cell import Cell
from scheduler.policy.decisions import ExpireRows
from scheduler.policy.expiry import Expiry
from scheduler.policy.limits import Limits, number_slots


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_below_one_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match="the weight of acme is"):
        Limits(account_weights={"acme": weight})


def test_the_store_is_asked_at_the_start_and_then_again_and_again() -> None:
    cell = Cell(Limits(), number_slots("s"), expiry=Expiry(5.0))
    assert cell.opened(100.0) == [ExpireRows(2)]
    assert cell.wake_at == 105.0
    assert cell.wake(105.0) == [ExpireRows(2)]
    for _ in range(3_000):
        cell.task_ended()
    assert cell.wake(cell.wake_at) == [ExpireRows(8)]
    assert cell.wake(cell.wake_at) == [ExpireRows(2)]
    assert cell.wake_at == 120.0


def test_a_cell_without_expiry_asks_for_none() -> None:
    cell = Cell(Limits(), number_slots("s"))
    cell.task_ended()
    assert cell.opened(0.0) == []
    assert cell.wake_at == float("inf")
