"""Bounds of the slots of an account and of an image: an account at its bound makes room among its own."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.policy.cores_wanted import ANY, CoresWanted
from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Priority, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import World

NODES = [NodeFacts("a", 400, 8192, 8), NodeFacts("b", 400, 8192, 8)]


def pool(
    account: str = "acme",
    image: str = "cat",
    memory_mib: int = 512,
    priority: Priority = Priority.NORMAL,
    isolation: Isolation = Isolation.SHARED,
) -> PoolKey:
    return PoolKey(account, image, Resources(100, memory_mib), isolation, (), priority)


def slots(world: World) -> Counter[str]:
    """How many slots each account has."""
    return Counter(slot.pool.account for slot in world.slots.values())


def world_of(**limits: object) -> World:
    return World(NODES, Limits(**limits))  # type: ignore[arg-type]


def test_an_account_has_no_more_slots_than_it_may() -> None:
    world = world_of(max_slots_account=2)
    tasks = [world.arrive(pool(), 1.0) for _ in range(6)]
    other = [world.arrive(pool("bolt"), 1.0) for _ in range(2)]
    world.run(0.5)
    assert slots(world) == {"acme": 2, "bolt": 2}
    assert world.cell.waiting_for(tasks[-1].id, world.now) == ("its account has as many slots as it may (2)")
    world.run(10.0)
    assert all(task.ends == ["succeeded"] for task in tasks + other)


def test_an_account_may_have_a_bound_of_its_own() -> None:
    world = world_of(max_slots_account=2, account_slots={"acme": 5})
    for account in ("acme", "bolt"):
        for _ in range(8):
            world.arrive(pool(account), 5.0)
    world.run(1.0)
    assert slots(world) == {"acme": 5, "bolt": 2}


def test_an_image_has_no_more_slots_of_an_account_whatever_their_sizes() -> None:
    world = world_of(max_slots_image=2)
    for memory_mib in (256, 512, 1024):
        world.arrive(pool(memory_mib=memory_mib), 5.0)
    last = world.arrive(pool(memory_mib=2048), 5.0)
    world.arrive(pool(image="ocr"), 5.0)
    world.arrive(pool("bolt"), 5.0)
    world.run(1.0)
    assert slots(world) == {"acme": 3, "bolt": 1}
    assert world.cell.waiting_for(last.id, world.now) == (
        "its account has as many slots of its image as it may (2)"
    )


def test_an_idle_slot_of_the_account_gives_its_place_at_once() -> None:
    world = world_of(max_slots_account=1)
    world.arrive(pool(image="cat"), 1.0)
    world.arrive(pool("bolt"), 1.0)
    world.run(5.0)
    task = world.arrive(pool(image="ocr"), 1.0)
    world.run(7.0)
    assert task.ends == ["succeeded"]
    # That of the other account, which has rested for as long, is still there.
    assert slots(world) == {"acme": 1, "bolt": 1}


def test_a_busy_pool_of_the_account_gives_a_place_after_its_task() -> None:
    world = world_of(max_slots_account=1)
    for _ in range(20):
        world.arrive(pool(image="cat"), 1.0)
    task = world.arrive(pool(image="ocr"), 1.0)
    world.run(6.0)
    assert task.ends == ["succeeded"]
    world.run(60.0)
    assert all(task.ends == ["succeeded"] for task in world.tasks.values())


def test_a_spare_task_gives_way_to_a_normal_one_of_its_account() -> None:
    world = world_of(max_slots_account=1)
    spare = world.arrive(pool(priority=Priority.SPARE), 100.0)
    world.run(1.0)
    task = world.arrive(pool(), 1.0)
    world.run(3.0)
    assert spare.gave_way == 1
    assert task.ends == ["succeeded"]


def test_a_slot_that_becomes_idle_gives_its_place_to_a_pool_that_waited_meanwhile() -> None:
    world = world_of(max_slots_account=1)
    world.arrive(pool(image="cat"), 0.5)
    world.run(0.4)
    task = world.arrive(pool(image="ocr"), 0.5)
    world.run(5.0)
    assert task.ends == ["succeeded"]
    assert [slot.pool.image_digest for slot in world.slots.values()] == ["ocr"]


def test_a_place_of_another_account_does_not_lead_beyond_the_bound() -> None:
    world = World([NodeFacts("a", 800, 8192, 6)], Limits(account_slots={"acme": 1}))
    for _ in range(40):
        world.arrive(pool("bolt", "many"), 1.0)
    world.arrive(pool(), 30.0)
    world.run(2.0)
    for number in range(3):
        world.arrive(pool(image=f"ocr-{number}"), 30.0)
    last = world.arrive(pool("clio"), 1.0)
    most = 0
    for tenth in range(20, 120):
        world.run(tenth / 10)
        most = max(most, slots(world)["acme"])
    assert most == 1
    assert last.ends == ["succeeded"], "it does not wait behind those that may have no place"


def test_a_place_that_idles_does_not_lead_a_spare_task_beyond_the_bound() -> None:
    world = World([NodeFacts("a", 800, 8192, 6)], Limits(account_slots={"acme": 1}))
    for _ in range(5):
        world.arrive(pool("bolt"), 1.0)
    world.arrive(pool(), 10.0)
    world.run(5.0)
    assert slots(world) == {"acme": 1, "bolt": 5}
    world.arrive(pool(priority=Priority.SPARE), 1.0)
    for tenth in range(50, 100):
        world.run(tenth / 10)
        assert slots(world)["acme"] == 1


def test_machines_that_an_account_may_not_use_are_not_wanted() -> None:
    world = world_of(max_slots_account=2)
    for _ in range(1_000):
        world.arrive(pool(), 600.0)
    world.run(1.0)
    assert CoresWanted().look(world.cell.books, world.now)[ANY] == pytest.approx(2.0)


TASKS = st.lists(
    st.tuples(
        st.floats(0.0, 20.0),
        st.sampled_from(["acme", "bolt"]),
        st.sampled_from(["cat", "ocr"]),
        st.sampled_from([256, 512]),
        st.sampled_from(list(Priority)),
        st.sampled_from(list(Isolation)),
        st.floats(0.01, 4.0),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(tasks=TASKS, most=st.integers(1, 4), most_image=st.integers(1, 3))
def test_every_task_ends_whatever_the_bounds(
    tasks: list[tuple[float, str, str, int, Priority, Isolation, float]], most: int, most_image: int
) -> None:
    world = world_of(max_slots_account=most, max_slots_image=most_image, keep_idle_s=5.0)
    for at_s, account, image, memory_mib, priority, isolation, run_s in tasks:
        key = pool(account, image, memory_mib, priority, isolation)

        def arrive(key: PoolKey = key, run_s: float = run_s) -> None:
            world.arrive(key, run_s)
            check()

        world.at(at_s, arrive)

    def check() -> None:
        assert all(number <= most for number in slots(world).values())
        images = Counter((slot.pool.account, slot.pool.image_digest) for slot in world.slots.values())
        assert all(number <= most_image for number in images.values())

    while world.now < 400.0:
        world.run(world.now + 0.5)
        check()
    assert [task.id for task in world.tasks.values() if task.ends != ["succeeded"]] == []
    world.run(100_000.0)
    assert_books_are_empty(world.cell)
