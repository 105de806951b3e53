"""Spare tasks run on what is left, and give way when normal ones need their room or their places."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Priority, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import World

ONE_NODE = [NodeFacts("n1", 200, 8192, 8)]


def pool(account: str, priority: Priority = Priority.NORMAL, cpu_percent: int = 100) -> PoolKey:
    return PoolKey(account, "cat", Resources(cpu_percent, 512), Isolation.SHARED, (), priority)


SPARE = pool("batch", Priority.SPARE)


def test_spare_tasks_use_all_that_is_free() -> None:
    world = World(ONE_NODE)
    tasks = [world.arrive(SPARE, 1.0) for _ in range(10)]
    world.run(7.0)
    assert {tuple(task.ends) for task in tasks} == {("succeeded",)}
    assert max(task.ended_at for task in tasks) < 6.0


def test_a_normal_task_takes_a_spare_ones_room_and_the_spare_one_runs_again() -> None:
    world = World(ONE_NODE)
    spare = [world.arrive(SPARE, 100.0) for _ in range(2)]
    world.run(10.0)
    normal = world.arrive(pool("acme"), 5.0)
    world.run(12.0)
    # Its slot started beside them; then the later of the two gave way within moments.
    assert normal.started_at == [10.0 + world.start_s + world.kill_s] if world.start_s else False
    assert [task.gave_way for task in spare] == [0, 1]
    world.run()
    assert {tuple(task.ends) for task in (normal, *spare)} == {("succeeded",)}
    # Having given way is no attempt.
    assert [task.attempts for task in spare] == [1, 1]
    assert_books_are_empty(world.cell)


def test_only_as_many_give_way_as_are_needed() -> None:
    world = World([NodeFacts("n1", 400, 8192, 16)])
    spare = [world.arrive(SPARE, 100.0) for _ in range(4)]
    warm = world.arrive(pool("acme", cpu_percent=200), 1.0)
    world.run(10.0)
    assert warm.ends == ["succeeded"]
    before = sum(task.gave_way for task in spare)
    world.arrive(pool("acme", cpu_percent=200), 1.0)
    # Others that ask at the same time find that room is being made already.
    world.arrive(pool("acme", cpu_percent=100), 1.0)
    world.run(13.0)
    assert sum(task.gave_way for task in spare) - before <= 3
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}


def test_nothing_gives_way_to_what_would_not_fit_even_then() -> None:
    world = World(ONE_NODE)
    world.arrive(pool("acme"), 50.0)
    world.run(1.0)
    spare = world.arrive(SPARE, 30.0)
    world.run(2.0)
    large = world.arrive(pool("other", cpu_percent=200), 1.0)
    world.run()
    assert spare.gave_way == 0
    assert {tuple(task.ends) for task in (spare, large)} == {("succeeded",)}


def test_a_spare_task_that_gave_way_waits_for_its_longest_time_at_most() -> None:
    world = World(ONE_NODE)
    spare = [world.arrive(SPARE, 30.0, timeout_s=5.0) for _ in range(2)]
    world.run(1.0)
    normal = world.arrive(pool("acme"), 60.0)
    world.run(10.0)
    assert [(task.gave_way, task.ends) for task in spare] == [(0, []), (1, ["expired"])]
    world.run()
    assert spare[0].ends == normal.ends == ["succeeded"]
    assert_books_are_empty(world.cell)


def test_a_normal_pool_starts_its_slot_where_spare_tasks_can_give_way() -> None:
    """Not on a node that normal tasks fill: there it would wait, though spare tasks run elsewhere."""
    world = World([NodeFacts("n1", 200, 8192, 8), NodeFacts("n2", 200, 8192, 8)])
    world.arrive(pool("busy", cpu_percent=200), 100.0)
    world.run(1.0)
    (full,) = world.nodes_of(pool("busy", cpu_percent=200))
    for _ in range(2):
        world.arrive(SPARE, 100.0)
    world.run(2.0)
    normal = world.arrive(pool("acme"), 1.0)
    world.run(3.0)
    assert world.nodes_of(pool("acme")) == [{"n1": "n2", "n2": "n1"}[full]]
    assert normal.started_at


def test_a_spare_slots_place_goes_to_a_normal_pool() -> None:
    world = World([NodeFacts("n1", 400, 8192, 2)])
    spare = [world.arrive(SPARE, 100.0) for _ in range(3)]
    world.run(5.0)
    normal = world.arrive(pool("acme"), 1.0)
    world.run(6.0)
    assert normal.started_at
    assert sum(task.gave_way for task in spare) == 1
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}


def test_a_spare_pool_takes_no_slot_of_others_that_has_just_been_used() -> None:
    """Another task may come for it. One that has been idle for a while gives its place: `test_elsewhere`."""
    world = World([NodeFacts("n1", 400, 8192, 2)], Limits(keep_idle_s=20.0))
    for number in range(20):
        for account in ("a", "b"):
            world.at(number * 0.9, partial(world.arrive, pool(account), 0.1))
    world.run(5.0)
    spare = world.arrive(SPARE, 1.0)
    world.run(17.0)
    assert spare.started_at == []
    world.run(21.0)
    assert spare.started_at


def test_spare_tasks_do_not_run_past_a_normal_one_that_waits_for_room() -> None:
    world = World(ONE_NODE)
    world.arrive(pool("large", cpu_percent=200), 1.0)
    world.run(2.0)
    first = world.arrive(SPARE, 10.0)
    world.run(3.0)
    large = world.arrive(pool("large", cpu_percent=200), 5.0)
    second = world.arrive(SPARE, 10.0)
    world.run(3.5)
    assert (len(large.started_at), first.gave_way, second.started_at) == (1, 1, [])
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}


tasks = st.tuples(
    st.integers(0, 3),
    st.sampled_from([Priority.NORMAL, Priority.SPARE]),
    st.sampled_from([50, 100, 200]),
    st.sampled_from([0.2, 2.0, 15.0]),
    st.floats(0.0, 30.0),
)


@given(
    tasks=st.lists(tasks, min_size=1, max_size=40),
    cores=st.integers(2, 4),
    slots=st.integers(1, 8),
    dies=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_every_task_ends_once_whatever_gives_way(
    tasks: list[tuple[int, Priority, int, float, float]], cores: int, slots: int, dies: bool
) -> None:
    world = World([NodeFacts(f"n{number}", 100 * cores, 8192, slots) for number in (1, 2)])
    for account, priority, cpu_percent, run_s, at_s in tasks:
        key = pool(f"account-{account}", priority, cpu_percent)
        world.at(at_s, lambda key=key, run_s=run_s: world.arrive(key, run_s))  # type: ignore[misc]
    if dies:
        world.at(20.0, lambda: world.lose_node("n1"))
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}
    assert_books_are_empty(world.cell)
