"""Prices in integers: UGC's own example to the last core-second, and sums that do not depend on how they are cut."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.billing.prices import CORE_HOUR_US, Price, PriceList, in_words, millionths, settle
from scheduler.task import Priority

UGC = Price(date(2026, 1, 1), "0.09")
EXACT = Price(date(2026, 1, 1), "0.09", quantum_us=1, whole_core_hours=False)


def test_ugcs_example() -> None:
    """100,000,000 tasks of 100 ms: 2777 core-hours, 249.93 CNY, 2800 core-seconds carried."""
    due_us = 100_000_000 * UGC.billed_us(100_000)
    charged = settle(due_us, UGC, Priority.NORMAL)
    assert in_words(charged.amount_millionths) == "249.93"
    assert charged.carried_us == 2800 * 1_000_000


@pytest.mark.parametrize(
    ("cpu_us", "billed_us"), [(0, 0), (1, 100_000), (99_999, 100_000), (100_000, 100_000), (100_001, 200_000)]
)
def test_each_task_is_rounded_up_to_a_quantum(cpu_us: int, billed_us: int) -> None:
    assert UGC.billed_us(cpu_us) == billed_us
    assert EXACT.billed_us(cpu_us) == cpu_us


@given(
    st.lists(st.integers(0, 10 * CORE_HOUR_US), max_size=12),
    st.sampled_from((UGC, EXACT)),
    st.sampled_from(Priority),
)
def test_periods_add_up_to_one(parts: list[int], price: Price, priority: Priority) -> None:
    """However time is cut into periods, the carried rest makes their sum that of one period."""
    amount, carried_us = 0, 0
    for due_us in parts:
        charged = settle(due_us + carried_us, price, priority)
        assert charged.amount_millionths >= 0
        assert charged.carried_us >= 0
        amount += charged.amount_millionths
        carried_us = charged.carried_us
    whole = settle(sum(parts), price, priority)
    # The exact model rounds up what is paid for once for each period.
    assert 0 <= whole.amount_millionths - amount <= (0 if price.whole_core_hours else len(parts))


def test_spare_time_costs_its_part() -> None:
    half = msgspec.structs.replace(UGC, spare_percent=50)
    due_us = 10 * CORE_HOUR_US
    assert in_words(settle(due_us, half, Priority.SPARE).amount_millionths) == "0.45"
    assert in_words(settle(due_us, half, Priority.NORMAL).amount_millionths) == "0.90"
    free = msgspec.structs.replace(EXACT, spare_percent=0)
    assert settle(due_us, free, Priority.SPARE) == (0, 0)


def test_a_price_counts_from_midnight_utc_of_its_day() -> None:
    prices = PriceList(
        "CNY", (UGC, msgspec.structs.replace(UGC, first_day=date(2026, 3, 1), core_hour="0.10"))
    )
    prices.check()
    change_us = prices.prices[1].from_us
    assert change_us == 1_772_323_200_000_000
    assert [prices.number_at(us) for us in (0, change_us - 1, change_us, change_us + 1)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "text", ["", "-1", "0.0000001", "1e3", "0,09", "1.", ".5", "x", "1234567890", "\u0661"]
)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="core_hour"):
        millionths(text)


def test_a_list_that_is_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="does not come after"):
        PriceList("CNY", (UGC, UGC)).check()


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "0.00"), (1, "0.000001"), (90_000, "0.09"), (-1_500_000, "-1.50"), (10**12, "1000000.00")],
)
def test_amounts_in_words(amount: int, words: str) -> None:
    assert in_words(amount) == words
