"""An account of ever new kinds of slots is refused, and told when it may come again; others are not."""

from __future__ import annotations

import pytest

from scheduler.errors import AccountLimit, QueueFull
from scheduler.policy.limits import Limits
from scheduler.policy.pool_bounds import BURST_S
from scheduler.pool import PoolKey
from tests.scheduler.policy.house import House, pool


def shape(number: int, account: str = "churn") -> PoolKey:
    return pool(account, memory_mib=16 + number)


def send(house: House, key: PoolKey) -> None:
    """A task is checked, and arrives."""
    house.policy.check(key, house.now)
    house.arrive(key)


def test_an_account_has_so_many_pools_and_may_use_those_that_it_has() -> None:
    house = House(Limits(max_pools_account=3, max_slots=2))
    for number in range(3):
        send(house, shape(number))
    with pytest.raises(AccountLimit, match="this account has 3 kinds of slots in this set already"):
        send(house, shape(3))
    for number in range(3):
        send(house, shape(number))
    send(house, shape(3, "quiet"))
    # Its tasks of one kind go, and have no slot: the kind is forgotten.
    house.leave("t3")
    house.leave("t6")
    house.tick(1)
    send(house, shape(3))
    house.check()


def test_a_set_has_so_many_pools() -> None:
    house = House(Limits(max_pools=2))
    send(house, shape(0, "a"))
    send(house, shape(0, "b"))
    with pytest.raises(QueueFull, match="this set has 2 kinds of slots already"):
        send(house, shape(0, "c"))
    send(house, shape(0, "a"))


def test_an_account_adds_pools_at_a_rate_whether_or_not_the_old_ones_are_still_there() -> None:
    house = House(Limits(new_pools_account_per_s=0.5, keep_idle_s=1))
    burst = round(0.5 * BURST_S)
    for number in range(burst):
        send(house, shape(number))
    with pytest.raises(AccountLimit, match=r"0\.5 new kinds of slots per second") as refused:
        send(house, shape(burst))
    assert refused.value.retry_after_s == pytest.approx(2)
    send(house, shape(0))
    send(house, shape(burst, "quiet"))
    house.now += 2.001
    send(house, shape(burst))
    with pytest.raises(AccountLimit):
        send(house, shape(burst + 1))


def test_the_tasks_of_an_earlier_run_count_but_do_not_put_their_account_into_debt() -> None:
    house = House(Limits(new_pools_account_per_s=1, max_slots=1))
    # They were accepted already, so nothing is checked.
    for number in range(4 * BURST_S):
        house.arrive(shape(number))
    with pytest.raises(AccountLimit) as refused:
        send(house, shape(7777))
    assert refused.value.retry_after_s == pytest.approx(1)
