"""A master key, and changes with a clock and random digits that a test can foresee."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from scheduler.accounts.book import Changes
from scheduler.accounts.sealing import Seal

NOW_US = 1_800_000_000_000_000

ChangesAt = Callable[[int], Changes]


@pytest.fixture
def seal() -> Seal:
    return Seal([b"k" * 32])


@pytest.fixture
def changes_at(seal: Seal) -> ChangesAt:
    numbers = itertools.count(1)

    def digits(count: int) -> str:
        return f"{next(numbers):0{count}x}"

    return lambda now_us: Changes(seal, now_us, digits)


@pytest.fixture
def changes(changes_at: ChangesAt) -> Changes:
    return changes_at(NOW_US)
