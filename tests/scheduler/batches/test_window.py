"""The window of a batch follows what runs, within bounds."""

from __future__ import annotations

import pytest

from scheduler.batches.window import AT_ONCE, LEAST, MOST, Window


def filled(window: Window, waiting: int, running: int, account_live: int = 0) -> int:
    """How many tasks wait once the batch has made all that it may."""
    while room := window.room(waiting, running, account_live):
        assert room <= AT_ONCE
        waiting += room
        account_live += room
    return waiting


@pytest.mark.parametrize(
    ("running", "waiting"),
    [(0, LEAST), (2, LEAST), (LEAST, LEAST), (300, 300), (MOST, MOST), (50_000, MOST)],
)
def test_as_many_wait_as_run_within_bounds(running: int, waiting: int) -> None:
    found = filled(Window(100_000), 0, running)
    assert waiting // 2 < found <= waiting


def test_it_makes_tasks_in_portions() -> None:
    window = Window(100_000)
    assert filled(window, 0, 2) == LEAST
    assert window.room(LEAST // 2 + 1, 2, LEAST) == 0
    assert not window.is_open(LEAST // 2 + 1 + 2)
    assert window.is_open(LEAST // 2 + 2)
    assert window.room(LEAST // 2, 2, LEAST) == LEAST // 2


def test_batches_of_one_account_share_its_bound() -> None:
    window = Window(100)
    assert filled(window, 0, 0, 90) == 10
    assert filled(window, 0, 0, 100) == 0
    assert filled(window, 0, 0, 150) == 0
