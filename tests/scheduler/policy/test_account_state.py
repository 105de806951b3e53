"""Accounts as operators see them, and who floods a set."""

from __future__ import annotations

import pytest

from scheduler.errors import BadRequest
from scheduler.policy.account_state import FLOOD_TASKS, AccountState, accounts, cursor_of
from scheduler.policy.limits import Limits
from tests.scheduler.policy.house import House, pool


def seen(house: House) -> dict[str, AccountState]:
    return {state.account: state for state in accounts(house.policy.books, house.now, 100)}


def fill(house: House, account: str, number: int, *, cpu_percent: int = 100) -> None:
    for _ in range(number):
        house.arrive(pool(account, cpu_percent=cpu_percent))


def test_an_account_shows_what_waits_what_runs_and_what_it_holds_over_all_its_pools() -> None:
    house = House(Limits(cpu_percent=400, account_weights={"acme": 3}))
    house.arrive(pool("acme", "cat", cpu_percent=150))
    house.arrive(pool("acme", "ocr", cpu_percent=50, memory_mib=1024))
    for _ in range(2):
        house.hello()
    house.tick(2.0)
    house.arrive(pool("acme", "cat", cpu_percent=150))
    house.tick(3.0)
    fill(house, "shop", 1)
    house.hello()
    house.hello()
    found = seen(house)
    acme = found["acme"]
    assert (acme.weight, acme.pools, acme.running, acme.queued) == (3, 2, 3, 0)
    assert (acme.cpu_percent_held, acme.memory_mib_held) == (350, 2048)
    assert acme.slots == {"idle": 0, "starting": 0, "running": 3}
    assert (acme.fair_part, found["shop"].fair_part) == (0.75, 0.25)
    assert (found["shop"].queued, found["shop"].running) == (1, 0)


def test_the_longest_wait_is_over_all_pools_of_the_account() -> None:
    house = House(Limits(cpu_percent=100, max_slots=1))
    house.arrive(pool("acme", "cat"))
    house.tick(7.0)
    house.arrive(pool("acme", "ocr"))
    assert seen(house)["acme"].oldest_wait_s == 7.0


def test_one_account_alone_floods_nobody() -> None:
    house = House(Limits(cpu_percent=100, max_slots=1))
    fill(house, "acme", 5 * FLOOD_TASKS)
    assert seen(house)["acme"].floods == ()


def test_an_account_that_sends_many_tasks_floods_the_queue_while_others_wait() -> None:
    house = House(Limits(cpu_percent=100, max_slots=4))
    fill(house, "acme", FLOOD_TASKS)
    fill(house, "shop", 3)
    found = seen(house)
    assert "queue" in found["acme"].floods
    assert found["shop"].floods == ()


def test_a_short_queue_is_no_flood() -> None:
    house = House(Limits(cpu_percent=100, max_slots=4))
    fill(house, "acme", FLOOD_TASKS - 1)
    fill(house, "shop", 1)
    assert "queue" not in seen(house)["acme"].floods


def test_equal_accounts_flood_nothing() -> None:
    house = House(Limits(cpu_percent=200, max_slots=4))
    for account in ("acme", "shop", "mill"):
        fill(house, account, 3 * FLOOD_TASKS)
    assert {state.floods for state in seen(house).values()} == {()}


def test_an_account_that_holds_all_cores_and_slots_while_another_waits_floods_both() -> None:
    house = House(Limits(cpu_percent=400, max_slots=4))
    fill(house, "acme", 4)
    for _ in range(4):
        house.hello()
    fill(house, "shop", 1)
    found = seen(house)
    assert found["acme"].floods == ("cores", "slots")
    assert found["shop"].floods == ()
    house.leave(next(iter(house.waiting)))
    assert seen(house)["acme"].floods == (), "nobody waits any more"


def test_a_weight_allows_an_account_more() -> None:
    house = House(Limits(cpu_percent=400, max_slots=100, account_weights={"acme": 9}))
    fill(house, "acme", 4)
    for _ in range(3):
        house.hello()
    fill(house, "shop", 1)
    # It holds 75 % of the cores, and its part is 90 %.
    assert seen(house)["acme"].floods == ()


def test_accounts_come_by_the_length_of_their_queue_in_pages() -> None:
    house = House(Limits(cpu_percent=100, max_slots=1))
    for account, number in (("acme", 2), ("mill", 5), ("shop", 2), ("zoo", 1)):
        fill(house, account, number)
    everything = accounts(house.policy.books, house.now, 10)
    assert [state.account for state in everything] == ["mill", "acme", "shop", "zoo"]
    paged: list[AccountState] = []
    after = ""
    while page := accounts(house.policy.books, house.now, 1, after):
        paged += page
        after = cursor_of(page[-1])
    assert paged == everything


@pytest.mark.parametrize("cursor", ["x", "1-2", "1--acme", "1-2-", "9999999999999-9999999999999-a"])
def test_a_cursor_that_no_page_named_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequest) as refused:
        accounts(House().policy.books, 0.0, 10, cursor)
    assert refused.value.field == "after"
