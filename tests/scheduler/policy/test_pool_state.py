"""Pools as operators see them."""

from __future__ import annotations

import pytest

from scheduler.errors import BadRequest
from scheduler.policy.limits import Limits
from scheduler.policy.pool_state import PoolState, cursor_of, pools
from scheduler.task import Isolation
from tests.scheduler.policy.house import House, pool

CAT, OCR, OTHER = pool(), pool("acme", "ocr"), pool("shop", "cat")


def seen(house: House, **asked: str) -> dict[tuple[str, str], PoolState]:
    found = pools(house.policy, house.now, 100, **asked)
    return {(state.key.account, state.key.image_digest): state for state in found}


def test_a_pool_shows_its_slots_by_state_its_queue_and_the_slots_that_it_wants() -> None:
    house = House(Limits(cpu_percent=200, max_slots=8))
    for _ in range(5):
        house.arrive(CAT)
    house.hello()
    house.tick(4.0)
    found = seen(house)["acme", "cat"]
    assert (found.queued, found.oldest_wait_s) == (4, 4.0)
    assert found.slots == {"idle": 0, "starting": 1, "running": 1}
    # Two cores: no more than two of its tasks ever run at the same time.
    assert (found.slots_wanted, found.slots_most) == (2, 2)
    assert found.starting_s == 4.0
    assert found.waiting_for == "a slot of its kind has been starting for 4.0 s"
    assert (found.failures, found.retry_in_s, found.trouble) == (0, None, "")


def test_a_pool_that_backs_off_says_why_and_until_when() -> None:
    house = House(Limits(start_backoff_s=100.0, start_backoff_max_s=100.0))
    house.arrive(CAT)
    house.lose("s1", reason="no space left on the engine")
    house.tick(30.0)
    found = seen(house)["acme", "cat"]
    assert (found.failures, found.retry_in_s) == (1, 70.0)
    assert found.trouble == "no space left on the engine"
    assert found.waiting_for is not None
    assert found.waiting_for.startswith(
        "the last slot of its kind could not start: no space left on the engine"
    )
    assert found.slots_wanted == 1


def test_a_fresh_pool_wants_slots_for_tasks_that_have_not_come_yet() -> None:
    house = House(Limits(cpu_percent=400))
    fresh = pool(isolation=Isolation.FRESH)
    house.arrive(fresh)
    house.hello()
    found = seen(house)["acme", "cat"]
    assert (found.queued, found.slots["running"], found.slots_wanted) == (0, 1, 2)


def test_a_pool_without_tasks_waits_for_nothing() -> None:
    house = House()
    house.arrive(CAT)
    house.hello()
    house.end(next(iter(house.running)))
    found = seen(house)["acme", "cat"]
    assert (found.queued, found.oldest_wait_s, found.waiting_for, found.slots_wanted) == (0, None, None, 0)
    assert found.slots == {"idle": 1, "starting": 0, "running": 0}


def test_pools_come_by_the_length_of_their_queue_in_pages() -> None:
    house = House(Limits(cpu_percent=100, max_slots=1))
    for key, number in ((CAT, 1), (OCR, 3), (OTHER, 2)):
        for _ in range(number):
            house.arrive(key)
    everything = pools(house.policy, house.now, 10)
    assert [state.queued for state in everything] == [3, 2, 1]
    paged: list[PoolState] = []
    after = ""
    while page := pools(house.policy, house.now, 1, after):
        paged += page
        after = cursor_of(page[-1])
    assert paged == everything
    (own,) = pools(house.policy, house.now, 10, account="shop")
    assert own.key == OTHER
    assert len({state.id for state in everything}) == 3


@pytest.mark.parametrize(
    "cursor", ["x", "1", "1-", "-1-abc", "1-abc", "9999999999999-0123456789ab", "٣-0123456789ab"]
)
def test_a_cursor_that_no_page_named_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequest) as refused:
        pools(House().policy, 0.0, 10, cursor)
    assert refused.value.field == "after"
