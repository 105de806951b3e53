"""The cell, as conversations: this happens, that is decided."""

from __future__ import annotations

import pytest

from scheduler.errors import AccountLimit, BadRequest, QueueFull
from scheduler.policy.limits import Limits
from scheduler.policy.totals import totals
from scheduler.task import Isolation
from tests.scheduler.policy.house import GONE, House, pool

CAT, OCR = pool(), pool("acme", "ocr")


def test_the_first_task_starts_a_slot_and_runs_in_it() -> None:
    house = House()
    assert house.arrive(CAT) == ["start s1 for acme/cat"]
    assert house.hello() == ["t1 in s1"]
    assert house.end("t1") == []
    assert house.arrive(CAT) == ["t2 in s1"]


def test_a_pool_starts_as_many_slots_as_could_run_at_once() -> None:
    house = House(Limits(cpu_percent=200))
    assert house.arrive(CAT) == ["start s1 for acme/cat"]
    assert house.arrive(CAT) == ["start s2 for acme/cat"]
    assert house.arrive(CAT) == []
    assert house.hello() == ["t1 in s1"]
    assert house.end("t1") == ["t2 in s1"]
    assert house.hello() == ["t3 in s2"]


def test_a_task_takes_whichever_slot_is_ready_first() -> None:
    house = House()
    house.arrive(CAT)
    house.arrive(CAT)
    assert house.hello("s2") == ["t1 in s2"]
    assert house.hello("s1") == ["t2 in s1"]


def test_the_warmest_slot_is_used_and_the_coldest_retires() -> None:
    house = House(Limits(keep_idle_s=10))
    house.arrive(CAT)
    house.arrive(CAT)
    house.hello()
    house.hello()
    house.end("t1")
    house.now += 1
    house.end("t2")
    assert house.arrive(CAT) == ["t3 in s2"]
    house.end("t3")
    assert house.tick(9.5) == ["stop s1"]
    assert house.tick(1) == ["stop s2"]
    house.check()
    assert house.policy.books.pools == {}


def test_a_fresh_slot_serves_one_task() -> None:
    house = House(Limits(cpu_percent=100, fresh_ahead=0))
    fresh = pool(isolation=Isolation.FRESH)
    house.arrive(fresh)
    house.arrive(fresh)
    assert house.hello() == ["t1 in s1"]
    assert house.end("t1") == ["stop s1", "start s2 for acme/cat"]
    assert house.hello() == ["t2 in s2"]
    assert house.end("t2") == ["stop s2"]


def test_a_fresh_pool_has_the_next_slot_ready() -> None:
    house = House(Limits(cpu_percent=100, keep_idle_s=60))
    fresh = pool(isolation=Isolation.FRESH)
    # One for the task, one for the next.
    assert house.arrive(fresh) == ["start s1 for acme/cat", "start s2 for acme/cat"]
    assert house.hello() == ["t1 in s1"]
    assert house.hello() == []
    assert house.end("t1") == ["stop s1"]
    house.now += 10
    # Ready before its task, so not a cold start; and its successor is on its way.
    assert house.arrive(fresh) == ["t2 in s2", "start s3 for acme/cat"]
    house.hello()
    assert house.end("t2") == ["stop s2"]
    assert house.tick(59) == []
    assert house.tick(2) == ["stop s3"]


def test_a_busier_fresh_pool_has_more_slots_ready_and_takes_no_slot_of_others() -> None:
    house = House(Limits(cpu_percent=100, max_slots=6, fresh_ahead=4))
    other, fresh = pool("idle"), pool(isolation=Isolation.FRESH)
    house.arrive(other)
    house.hello()
    house.end("t1")
    for _ in range(8):
        house.now += 0.1
        house.arrive(fresh)
    while house.starting:
        house.hello()
    assert list(house.slots.values()).count(fresh) == 5
    assert list(house.slots.values()).count(other) == 1


def test_who_leaves_the_queue_is_not_served() -> None:
    house = House(Limits(cpu_percent=100))
    house.arrive(CAT)
    house.arrive(CAT)
    house.hello()
    assert house.leave("t2") == []
    assert house.leave("t2") == []
    assert house.end("t1") == []
    house.check()


def test_accounts_take_turns() -> None:
    house = House(Limits(cpu_percent=100))
    for _ in range(4):
        house.arrive(pool("flood"))
    house.arrive(pool("single"), "mine")
    house.hello("s1")
    house.hello("s2")
    assert house.end("t1") == ["mine in s2"]
    assert house.end("mine") == ["t2 in s1"]


def test_an_accounts_own_pools_take_turns() -> None:
    house = House(Limits(cpu_percent=100))
    for _ in range(3):
        house.arrive(CAT)
    house.arrive(OCR, "ocr")
    house.hello("s1")
    house.hello("s2")
    assert house.end("t1") == ["ocr in s2"]


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_ten_thousand_tasks_of_one_account_delay_anothers_by_one_end_a_slot(cores: int) -> None:
    house = House(Limits(cpu_percent=100 * cores))
    for _ in range(10_000):
        house.arrive(pool("flood"))
    while house.starting:
        house.hello()
    house.arrive(pool("single"), "mine")
    if house.starting:
        house.hello()
    ends = 0
    while "mine" not in house.running:
        house.end(next(iter(house.running)))
        ends += 1
    assert ends <= cores
    house.check()


def test_a_large_task_is_overtaken_for_a_while_only() -> None:
    """Room is kept for it, so that a flood of small ones cannot keep it waiting for ever."""
    house = House(Limits(cpu_percent=200, patience_s=1.0))
    for _ in range(50):
        house.arrive(pool("flood"))
    house.hello()
    house.hello()
    house.arrive(pool("large", cpu_percent=200), "mine")
    house.hello("s3")
    # At first what is free is used.
    assert house.end("t1") == ["t3 in s1"]
    house.now += 1.5
    assert house.end("t2") == []
    assert house.end("t3") == ["mine in s3"]
    assert sorted(house.end("mine")) == ["t4 in s1", "t5 in s2"]
    house.check()


def test_a_hungry_pool_gets_the_place_of_the_coldest_idle_slot() -> None:
    house = House(Limits(max_slots=2))
    house.arrive(CAT)
    house.hello()
    house.end("t1")
    house.now += 1
    house.arrive(OCR)
    house.hello()
    house.end("t2")
    assert house.arrive(pool("other")) == ["stop s1", "start s3 for other/cat"]


def test_a_pool_without_a_slot_gets_one_of_a_busy_pool_after_some_patience() -> None:
    house = House(Limits(cpu_percent=100, max_slots=1, patience_s=1.0))
    for _ in range(3):
        house.arrive(CAT)
    house.hello()
    assert house.arrive(pool("other"), "mine") == []
    assert house.end("t1") == ["t2 in s1"]
    house.now += 1.5
    assert house.end("t2") == ["stop s1", "start s2 for other/cat"]
    assert house.hello() == ["mine in s2"]


def test_a_pool_with_many_slots_gives_way_at_once() -> None:
    house = House(Limits(cpu_percent=300, max_slots=3))
    for _ in range(6):
        house.arrive(CAT)
    for _ in range(3):
        house.hello()
    assert house.arrive(pool("other"), "mine") == []
    assert house.end("t1") == ["stop s1", "start s4 for other/cat"]


def test_a_slot_that_cannot_start_is_tried_again_later_and_later() -> None:
    house = House(Limits(start_backoff_s=1.0, start_backoff_max_s=3.0))
    house.arrive(CAT)
    for delay_s in (1.0, 2.0, 3.0, 3.0):
        assert house.lose(house.starting[0]) == []
        assert house.tick(delay_s - 0.1) == []
        (start,) = house.tick(0.2)
        assert start.startswith("start")
    assert house.hello() == ["t1 in s5"]
    house.end("t1")
    house.lose("s5")
    # It had worked: the next starts at once.
    assert house.arrive(CAT) == ["start s6 for acme/cat"]


def test_after_a_failure_one_slot_goes_ahead_of_the_others() -> None:
    house = House(Limits(cpu_percent=400, start_backoff_s=1.0))
    for _ in range(4):
        house.arrive(CAT)
    for slot_id in list(house.starting):
        house.lose(slot_id)
    # Four failures in a row.
    assert house.tick(8.1) == ["start s5 for acme/cat"]
    assert house.tick(8.1) == []
    assert house.hello() == [
        "t1 in s5",
        "start s6 for acme/cat",
        "start s7 for acme/cat",
        "start s8 for acme/cat",
    ]


def test_pools_that_back_off_hide_nobody() -> None:
    house = House(Limits(cpu_percent=20_000, max_slots=200, start_backoff_s=10.0))
    for number in range(100):
        house.arrive(pool(f"broken{number}"))
        house.lose(house.starting[0])
    assert house.arrive(pool("well"), "mine") == ["start s101 for well/cat"]


def test_tasks_of_a_pool_whose_slots_can_never_start_fail() -> None:
    house = House()
    house.arrive(CAT)
    house.arrive(CAT)
    house.arrive(OCR)
    house.lose("s1", GONE)
    assert house.failed == []
    assert house.lose("s2", GONE) == ["fail t1", "fail t2"]
    assert house.hello() == ["t3 in s3"]


def test_a_pool_that_still_has_a_slot_goes_on_with_it_when_no_other_can_start() -> None:
    house = House()
    house.arrive(CAT)
    house.hello()
    house.arrive(CAT)
    house.arrive(CAT)
    assert house.lose("s2", GONE) == []
    assert house.end("t1") == ["t2 in s1"]


def test_a_slot_that_dies_under_its_task_frees_its_room() -> None:
    house = House(Limits(cpu_percent=100))
    house.arrive(CAT)
    house.hello()
    house.arrive(CAT)
    assert house.lose("s1") == ["start s2 for acme/cat"]
    assert house.hello() == ["t2 in s2"]
    house.check()


def test_memory_is_a_limit_like_cores() -> None:
    house = House(Limits(cpu_percent=800, memory_mib=1000))
    large = pool(memory_mib=600)
    house.arrive(large)
    house.arrive(large)
    assert house.hello() == ["t1 in s1"]
    assert not house.starting
    assert house.end("t1") == ["t2 in s1"]


def test_events_about_unknown_slots_and_tasks_are_nothing() -> None:
    house = House()
    policy = house.policy
    assert policy.slot_ready("x", 0) == policy.slot_freed("x", 0, 0) == policy.slot_gone("x", "lost", 0) == []
    assert policy.task_left("x", 0) == []
    house.arrive(CAT)
    assert policy.slot_freed("s1", 0, 0) == []
    house.hello()
    assert policy.slot_ready("s1", 0) == []
    house.end("t1")
    assert policy.slot_freed("s1", 0, 0) == []
    house.check()


def test_what_can_never_run_and_what_is_too_much_is_refused() -> None:
    house = House(Limits(cpu_percent=100, memory_mib=1024, max_waiting=3, max_waiting_account=2))
    with pytest.raises(BadRequest, match="cpu: at most 1,"):
        house.policy.check(pool(cpu_percent=150), house.now)
    with pytest.raises(BadRequest, match="1024 MiB"):
        house.policy.check(pool(memory_mib=2048), house.now)
    house.arrive(CAT)
    house.arrive(OCR)
    with pytest.raises(AccountLimit):
        house.policy.check(CAT, house.now)
    house.policy.check(pool("other"), house.now)
    house.arrive(pool("other"))
    with pytest.raises(QueueFull):
        house.policy.check(pool("third"), house.now)
    house.leave("t1")
    house.policy.check(pool("third"), house.now)
    house.policy.check(CAT, house.now)


def test_tasks_that_pause_before_their_next_attempt_count_as_waiting_ones() -> None:
    policy = House(Limits(max_waiting=3, max_waiting_account=2)).policy
    for number in range(2):
        policy.attempt_failed(f"cat-{number}", CAT, 1, 0.0)
    with pytest.raises(AccountLimit):
        policy.check(CAT, 0.0)
    policy.attempt_failed("other", pool("other"), 1, 0.0)
    with pytest.raises(QueueFull):
        policy.check(pool("third"), 0.0)
    policy.task_left("cat-0", 0.0)
    policy.check(pool("third"), 0.0)
    policy.check(CAT, 0.0)


def test_the_facts_tell_a_saturated_set_from_an_idle_one() -> None:
    house = House(Limits(cpu_percent=150, memory_mib=2048, max_slots=7))

    def facts() -> dict[str, float]:
        return totals(house.policy.books, house.now)

    idle = facts()
    assert (idle["cores"], idle["cores_busy"], idle["memory_mib"], idle["memory_busy_mib"]) == (
        1.5,
        0,
        2048,
        0,
    )
    assert (idle["slots_max"], idle["slots_running"], idle["tasks_waiting"]) == (7, 0, 0)
    assert idle["oldest_wait_seconds"] == 0
    house.arrive(CAT)
    house.hello()
    house.arrive(CAT)
    house.now += 2
    house.arrive(OCR)
    house.now += 3
    busy = facts()
    assert (busy["cores_busy"], busy["memory_busy_mib"]) == (1, CAT.resources.memory_mib)
    assert (busy["slots_running"], busy["tasks_waiting"], busy["oldest_wait_seconds"]) == (1, 2, 5)
    house.end("t1")
    # The one that waits longest is now in another pool.
    assert (facts()["tasks_waiting"], facts()["oldest_wait_seconds"]) == (1, 3)
