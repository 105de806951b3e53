"""The words in which a task that has waited for ten seconds is told what it waited for, in virtual time."""

from __future__ import annotations

import msgspec

from scheduler.policy.limits import Limits
from scheduler.policy.node import Standing
from scheduler.pool import PoolKey
from scheduler.task import Priority
from tests.scheduler.policy.house import House, pool

CAT, OCR = pool(), pool("acme", "ocr")


def waited(house: House, key: PoolKey) -> str:
    """A task arrives, and gives up after ten seconds; what it is told."""
    house.arrive(key, "impatient", timeout_s=10.0)
    house.tick(10.0)
    return house.waited_for.pop("impatient")


def test_a_start_that_takes_long() -> None:
    house = House(Limits(start_timeout_s=60.0))
    assert waited(house, CAT) == "a slot of its kind has been starting for 10.0 s"
    assert waited(house, CAT) == "a slot of its kind has been starting for 20.0 s"


def test_a_start_that_failed_and_the_next_one() -> None:
    house = House(Limits(cpu_percent=100, start_backoff_s=100.0, start_backoff_max_s=100.0))
    house.arrive(CAT)
    house.lose("s1", reason="no space left on the engine")
    failed = "the last slot of its kind could not start: no space left on the engine"
    assert waited(house, CAT) == failed
    house.tick(95.0)
    assert waited(house, CAT) == f"{failed}; a slot of its kind has been starting for 10.0 s"
    house.hello()
    assert waited(house, CAT) == "all slots of its kind are busy (1)"


def test_a_start_that_took_too_long() -> None:
    house = House(Limits(start_timeout_s=60.0, start_backoff_s=100.0, start_backoff_max_s=100.0))
    house.arrive(CAT)
    house.tick(60.0)
    assert waited(house, CAT) == "the last slot of its kind could not start: it did not start within 60 s"


def test_busy_slots_and_cores_in_use() -> None:
    house = House(Limits(cpu_percent=100, max_slots=2))
    for key in (OCR, CAT):
        house.arrive(key)
        house.hello()
    assert waited(house, OCR) == "all slots of its kind are busy (1)"
    # Its slot is there, but the core is not.
    assert waited(house, CAT) == "the cores or the memory that it needs are in use"


def test_a_spare_task_to_which_others_leave_nothing() -> None:
    house = House(Limits(cpu_percent=100, max_slots=2))
    spare = msgspec.structs.replace(OCR, priority=Priority.SPARE)
    house.arrive(spare, "first")
    house.hello()
    house.end("first")
    house.arrive(CAT)
    house.hello()
    assert waited(house, spare) == "it is a spare task, and other tasks leave it no cores or memory"


def test_places_in_use() -> None:
    house = House(Limits(cpu_percent=200, max_slots=1))
    house.arrive(OCR)
    house.hello()
    assert waited(house, CAT) == "all places for slots are in use"


def test_places_are_free_but_the_cluster_lets_no_slot_start() -> None:
    house = House(Limits(cpu_percent=200, max_slots=1))
    (node,) = house.policy.books.nodes
    house.policy.node_stands(node.facts.id, Standing.CLOSED, "it is marked ineligible", house.now)
    assert waited(house, CAT) == "no new slot starts: it is marked ineligible"
