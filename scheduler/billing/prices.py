"""Dated prices of CPU time, in integers throughout: a bill must be the same however often it is made. Pure.

Money is counted in millionths of the currency's unit, CPU time in microseconds, moments in microseconds since the
epoch.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from scheduler.task import Priority

MILLIONTHS: Final = 1_000_000
CORE_HOUR_US: Final = 3_600_000_000
_AMOUNT: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?")


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first_day": "from"}):
    """The price of CPU time from a day on, at midnight UTC.

    `core_hour` is an amount as text, with six decimals at most. Each task's CPU time is rounded up to `quantum_us`; 1:
    not at all. With `whole_core_hours`, whole core-hours are charged, and the rest is carried to the next period.
    Spare tasks cost `spare_percent` of it.
    """

    first_day: date
    core_hour: str
    quantum_us: Annotated[int, Meta(ge=1, le=3_600_000_000)] = 100_000
    whole_core_hours: bool = True
    spare_percent: Annotated[int, Meta(ge=0, le=100)] = 100

    @property
    def from_us(self) -> int:
        midnight = datetime(self.first_day.year, self.first_day.month, self.first_day.day, tzinfo=UTC)
        return int(midnight.timestamp()) * MILLIONTHS

    def core_hour_millionths(self, priority: Priority) -> int:
        """The price of a core-hour of tasks of this priority; a discount is rounded down, in the customer's favour."""
        whole = millionths(self.core_hour)
        return whole * self.spare_percent // 100 if priority is Priority.SPARE else whole

    def billed_us(self, cpu_us: int) -> int:
        """The CPU time that is billed for a task which used `cpu_us`."""
        return -(-cpu_us // self.quantum_us) * self.quantum_us


class PriceList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prices of a currency, each in force until the next begins."""

    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")]
    prices: Annotated[tuple[Price, ...], Meta(min_length=1, max_length=1000)]

    def check(self) -> None:
        """Raise `ValueError` with the field that is wrong."""
        days = [price.first_day for price in self.prices]
        for earlier, later in pairwise(days):
            if later <= earlier:
                raise ValueError(
                    f"prices: `from` {later} does not come after {earlier}; list them in their order"
                )
        for price in self.prices:
            millionths(price.core_hour)

    def number_at(self, us: int) -> int:
        """The number of the price in force at a moment; before the first one begins, the first."""
        found = 0
        for number, price in enumerate(self.prices):
            if price.from_us <= us:
                found = number
        return found


class Settled(NamedTuple):
    """`carried_us`: billed CPU time that is not charged yet."""

    amount_millionths: int
    carried_us: int


def settle(due_us: int, price: Price, priority: Priority) -> Settled:
    """Charge billed CPU time, that which was carried from the period before included."""
    core_hour = price.core_hour_millionths(priority)
    if price.whole_core_hours:
        hours, rest_us = divmod(due_us, CORE_HOUR_US)
        return Settled(hours * core_hour, rest_us)
    amount = due_us * core_hour // CORE_HOUR_US
    if not core_hour:
        return Settled(0, 0)
    # The CPU time that the amount pays for, rounded up. The rest costs less than a millionth.
    paid_us = -(-amount * CORE_HOUR_US // core_hour)
    return Settled(amount, due_us - paid_us)


def millionths(text: str) -> int:
    """An amount such as `0.09` in millionths. Raises `ValueError`."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"core_hour: {text!r:.40} is not an amount such as 0.09, with six decimals at most")
    return int(match[1]) * MILLIONTHS + int((match[2] or "").ljust(6, "0"))


def in_words(amount_millionths: int) -> str:
    """An amount as people write it: two decimals at least, six at most."""
    sign = "-" if amount_millionths < 0 else ""
    units, rest = divmod(abs(amount_millionths), MILLIONTHS)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{units}.{decimals}"
