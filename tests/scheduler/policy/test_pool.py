"""Which of a pool's waiting tasks starts: those whose callers wait come first, and the others go on."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.policy.pool import CALLERS_FIRST
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import SimTask, World


def pool(account: str = "acme", image: str = "sha256:x") -> PoolKey:
    return PoolKey(account, image, Resources(100, 64), Isolation.SHARED)


def one_core(start_s: float = 0.3) -> World:
    return World([NodeFacts("n1", 100, 4096, 8)], Limits(), start_s=start_s)


def order(tasks: list[SimTask]) -> list[SimTask]:
    return sorted((task for task in tasks if task.started_at), key=lambda task: task.started_at[0])


def test_a_call_comes_before_the_batch_that_its_account_sent_before() -> None:
    world = one_core()
    batch = [world.arrive(pool(), 1.0) for _ in range(1_000)]
    world.run(10.0)
    call = world.arrive(pool(), 0.1, caller_waits=True)
    world.run(11.5)
    assert call.ends == ["succeeded"]
    assert len(order(batch)) >= 11, "the batch goes on"


def test_a_flood_of_calls_lets_a_batch_pass_at_one_task_in_four() -> None:
    """There are always more calls than the core can do."""
    world = one_core()
    world.arrive(pool(), 1.0)
    world.run(1.0)
    batch = [world.arrive(pool(), 1.0) for _ in range(100)]
    for number in range(1_000):
        world.at(1.0 + number * 0.2, partial(world.arrive, pool(), 1.0, caller_waits=True))
    world.run(101.0)
    assert 24 <= len(order(batch)) <= 26
    # And evenly: none of them waits for more calls than that.
    gaps = [later.started_at[0] - task.started_at[0] for task, later in pairwise(order(batch))]
    assert max(gaps) <= (CALLERS_FIRST + 1) * 1.0 + 0.001


def test_calls_start_in_their_order_and_so_do_the_others() -> None:
    world = one_core()
    world.arrive(pool(), 1.0)
    world.run(0.5)
    calls: list[SimTask] = []
    batch: list[SimTask] = []
    for number in range(40):
        (calls if number % 2 else batch).append(world.arrive(pool(), 1.0, caller_waits=bool(number % 2)))
    world.run()
    assert order(calls) == calls
    assert order(batch) == batch
    assert_books_are_empty(world.cell)


def test_a_call_that_gives_up_leaves_nothing_behind() -> None:
    world = one_core()
    world.arrive(pool(), 1.0)
    calls = [world.arrive(pool(), 1.0, caller_waits=True) for _ in range(3)]
    batch = world.arrive(pool(), 1.0)
    world.run(0.5)
    world.leave(calls[0])
    world.run()
    assert batch.started_at
    assert_books_are_empty(world.cell)
    assert not world.cell.books.pools or not any(each.callers for each in world.cell.books.pools.values())


def test_a_call_of_another_image_waits_for_one_task_of_the_batch() -> None:
    """Queues of one account take turns: its own flood of one image does not keep it from another."""
    world = one_core()
    for _ in range(100):
        world.arrive(pool(), 1.0)
    world.run(10.0)
    call = world.arrive(pool(image="sha256:y"), 0.1, caller_waits=True)
    world.run(10.0 + 1.0 + 0.3 + 1.0)
    assert call.started_at


def test_calls_take_nothing_from_the_share_of_another_account() -> None:
    world = one_core(start_s=0.0)
    calls = [world.arrive(pool("caller"), 1.0, caller_waits=True) for _ in range(200)]
    batch = [world.arrive(pool("batch"), 1.0) for _ in range(200)]
    world.run(100.0)
    assert abs(len(order(calls)) - len(order(batch))) <= 2
