"""A cell of several nodes: where slots start, and what becomes of them when nodes come, drain and die."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.backoff import Backoff
from scheduler.errors import BadRequest, NoNode
from scheduler.policy.decisions import Decision
from scheduler.policy.limits import Limits, Retries
from scheduler.policy.node import NodeFacts, Standing
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import World


def node(
    node_id: str, cores: int = 2, slots: int = 8, features: str = "", images: tuple[str, ...] = ()
) -> NodeFacts:
    return NodeFacts(node_id, 100 * cores, 8192, slots, frozenset(features.split()), images)


def pool(account: str = "acme", image: str = "cat", cpu_percent: int = 100, features: str = "") -> PoolKey:
    return PoolKey(account, image, Resources(cpu_percent, 512), Isolation.SHARED, tuple(features.split()))


def test_a_warm_slot_comes_before_any_node() -> None:
    world = World([node("small"), node("large", cores=8)])
    first = world.arrive(pool(), 1.0)
    world.run(2.0)
    world.join_node(node("empty", cores=64))
    again = world.arrive(pool(), 1.0)
    assert again.slot_id == first.slot_id


def test_slots_start_on_the_node_with_most_room() -> None:
    world = World([node("small"), node("large", cores=8)])
    for _ in range(10):
        world.arrive(pool(), 5.0)
    # Eight cores there, two here: the larger one takes slots until both have as much room.
    assert sorted(world.nodes_of(pool())) == ["large"] * 8 + ["small"] * 2
    assert world.nodes_of(pool())[:6] == ["large"] * 6


def test_a_node_that_holds_the_image_comes_first_while_it_has_room() -> None:
    world = World([node("empty", cores=8), node("holds", images=("cat",))])
    for _ in range(3):
        world.arrive(pool(), 5.0)
    assert world.nodes_of(pool()) == ["holds", "holds", "empty"]


def test_a_node_holds_the_images_of_the_slots_that_started_there() -> None:
    world = World([node("a", cores=2), node("b", cores=1)], Limits(keep_idle_s=5.0))
    world.arrive(pool(), 1.0)
    world.run()
    assert world.slots == {}
    world.arrive(pool("other", "ocr"), 100.0)
    world.arrive(pool(), 1.0)
    # Node b has as much room as node a, where the other's task is; a has the image.
    assert world.nodes_of(pool()) == ["a"]


def test_tasks_fit_into_one_node_each() -> None:
    """Two nodes with half a task's cores free each have no room for it."""
    world = World([node("a", cores=3), node("b", cores=3)])
    large = [world.arrive(pool(cpu_percent=200), 5.0) for _ in range(3)]
    world.run(1.0)
    assert [len(task.started_at) for task in large] == [1, 1, 0]
    world.run()
    assert {tuple(task.ends) for task in large} == {("succeeded",)}


def test_slots_start_only_where_the_cpu_has_the_features() -> None:
    world = World([node("old", cores=64), node("new", cores=1, features="avx2 avx512f")])
    tasks = [world.arrive(pool(features="avx512f"), 1.0) for _ in range(3)]
    world.run(2.0)
    assert set(world.nodes_of(pool(features="avx512f"))) == {"new"}
    world.run()
    assert {tuple(task.ends) for task in tasks} == {("succeeded",)}


def test_features_that_no_node_has_are_refused_with_what_there_is() -> None:
    world = World([node("old", features="sse2"), node("new", features="sse2 avx2")])
    with pytest.raises(BadRequest, match="no node of this set has avx512f, gfni; there is: avx2, sse2"):
        world.cell.check(pool(features="avx512f gfni sse2"), world.now)
    world.cell.check(pool(features="avx2 sse2"), world.now)


def test_features_that_no_single_node_has_are_refused() -> None:
    world = World([node("a", features="avx2"), node("b", features="sve")])
    with pytest.raises(BadRequest, match="no single node of this set has all of avx2, sve"):
        world.cell.check(pool(features="avx2 sve"), world.now)
    with pytest.raises(BadRequest, match="cpu: at most 2,"):
        world.cell.check(pool(cpu_percent=300), world.now)


def test_a_set_without_a_node_is_unavailable_rather_than_too_small() -> None:
    world = World([])
    with pytest.raises(NoNode, match="No machine of this set answers"):
        world.cell.check(pool(), world.now)
    world.join_node(node("a"))
    world.cell.check(pool(), world.now)


def test_a_rare_node_is_found_among_many() -> None:
    world = World([*(node(f"n{number}") for number in range(300)), node("rare", features="avx512f")])
    world.arrive(pool(features="avx512f"), 1.0)
    assert world.nodes_of(pool(features="avx512f")) == ["rare"]


def test_a_task_that_waits_for_a_rare_node_says_so() -> None:
    world = World([*(node(f"n{number}") for number in range(40)), node("rare", features="avx512f")])
    usual, rare = pool(), pool(features="avx512f")
    assert world.cell.books.nodes.scarcity(usual) == ""
    assert world.cell.books.nodes.scarcity(rare) == "it needs avx512f, which 1 of 41 nodes can give now"
    world.drain_node("rare")
    assert world.cell.books.nodes.scarcity(rare) == "it needs avx512f, which none of 41 nodes can give now"
    world.join_node(node("second", features="avx2 avx512f"))
    assert world.cell.books.nodes.scarcity(rare) == "it needs avx512f, which 1 of 42 nodes can give now"
    alike = World([node("a", features="avx2"), node("b", features="avx2")])
    assert alike.cell.books.nodes.scarcity(pool(features="avx2")) == ""


def test_a_task_that_only_a_lost_node_could_run_waits_for_it_and_says_so() -> None:
    world = World([node("usual"), node("rare", cores=8, features="avx512f")])
    world.lose_node("rare")
    task = world.arrive(pool(features="avx512f"), 1.0)
    large = world.arrive(pool("other", cpu_percent=600), 1.0)
    world.run(100.0)
    assert world.cell.waiting_for(task.id, world.now) == (
        "no node that could run it takes tasks now; it needs avx512f, which none of 1 nodes can give now"
    )
    assert world.cell.waiting_for(large.id, world.now) == "no node that could run it takes tasks now"
    # What no node ever had is refused all the same, and so is all while no node is left.
    with pytest.raises(BadRequest, match="no node of this set has amx_tile"):
        world.cell.check(pool(features="amx_tile"), world.now)
    world.join_node(node("rare", cores=8, features="avx512f"))
    world.run(110.0)
    assert [task.ends, large.ends] == [["succeeded"], ["succeeded"]]
    world.lose_node("usual")
    world.lose_node("rare")
    with pytest.raises(NoNode):
        world.cell.check(pool(features="avx512f"), world.now)


def test_a_pool_without_a_place_holds_up_no_other() -> None:
    """The only node with the feature is full; the other accounts' slots start elsewhere."""
    world = World([node("rare", cores=4, slots=1, features="avx512f"), node("usual", cores=4)])
    world.arrive(pool("first", features="avx512f"), 50.0)
    world.run(1.0)
    waits = world.arrive(pool("second", features="avx512f"), 1.0)
    assert world.cell.waiting_for(waits.id, world.now) == (
        "all places for slots are in use; it needs avx512f, which 1 of 2 nodes can give now"
    )
    other = world.arrive(pool("third"), 1.0)
    world.run(3.0)
    assert (other.ends, waits.started_at) == (["succeeded"], [])
    world.run(60.0)
    assert waits.ends == ["succeeded"]


def test_a_pool_without_a_place_holds_up_no_other_that_takes_one_of_an_idle_slot() -> None:
    """All places are in use, those of the node with the feature by tasks."""
    rare = pool("first", features="avx512f")
    world = World([node("rare", cores=4, slots=2, features="avx512f"), node("usual", cores=4, slots=2)])
    for _ in range(2):
        world.arrive(rare, 50.0)
    world.run(1.0)
    for _ in range(2):
        world.arrive(pool("second"), 1.0)
    world.run(5.0)
    waits = world.arrive(pool("third", features="avx512f"), 1.0)
    other = world.arrive(pool("fourth"), 1.0)
    world.run(7.0)
    assert (other.ends, waits.started_at) == (["succeeded"], [])
    world.run(60.0)
    assert waits.ends == ["succeeded"]


def test_a_slot_whose_task_has_left_gives_its_place_to_a_pool_without_any() -> None:
    world = World([node("rare", cores=1, slots=2, features="avx512f"), node("usual")])
    for account in ("first", "second"):
        world.arrive(pool(account, features="avx512f"), 1.0)
        world.run(world.now + 5.0)
    world.arrive(pool("first", features="avx512f"), 100.0)
    leaves = world.arrive(pool("second", features="avx512f"), 1.0)
    world.run(11.0)
    world.arrive(pool("third", features="avx512f"), 1.0)
    world.run(12.0)
    world.leave(leaves)
    world.run(13.0)
    assert sorted(slot.pool.account for slot in world.slots.values()) == ["first", "third"]


def test_tasks_of_a_lost_node_run_elsewhere_and_count_as_lost_attempts() -> None:
    world = World([node("a"), node("b")], retries=Retries(3, Backoff(0.5, 10.0), Backoff(5.0, 10.0)))
    tasks = [world.arrive(pool(), 20.0) for _ in range(4)]
    world.run(5.0)
    hit = [task for task in tasks if world.slots[task.slot_id].node_id == "a"]
    assert len(hit) == 2
    world.lose_node("a")
    assert set(world.nodes_of(pool())) == {"b"}
    world.run(6.0)
    # They wait for their pause, and then for room.
    assert [len(task.started_at) for task in hit] == [1, 1]
    world.run()
    assert {tuple(task.ends) for task in tasks} == {("succeeded",)}
    assert [task.attempts for task in hit] == [2, 2]
    assert_books_are_empty(world.cell)


def test_a_task_that_loses_every_attempt_is_given_up() -> None:
    world = World([node("a", cores=1)], retries=Retries(2, Backoff(1.0, 10.0), Backoff(1.0, 10.0)))
    task = world.arrive(pool(), 100.0)
    for number in range(2):
        world.run(world.now + 10.0)
        world.lose_node("a" if number == 0 else "b")
        world.join_node(node("b", cores=1))
    world.run(world.now + 10.0)
    assert (task.ends, len(task.started_at)) == (["given up"], 2)


def test_a_set_whose_last_node_is_lost_goes_on_when_one_joins() -> None:
    world = World([node("a")])
    task = world.arrive(pool(), 1.0)
    world.lose_node("a")
    world.run(10.0)
    assert task.started_at == []
    world.join_node(node("b"))
    world.run(20.0)
    assert task.ends == ["succeeded"]


def test_a_draining_node_ends_what_it_runs_and_begins_nothing() -> None:
    world = World([node("a", cores=1), node("b", cores=1)])
    tasks = [world.arrive(pool(), 10.0) for _ in range(2)]
    world.run(5.0)
    idle = world.arrive(pool("other"), 0.1, task_id="queued")
    world.drain_node("a")
    drained = len(world.log)
    world.run(30.0)
    assert {tuple(task.ends) for task in [*tasks, idle]} == {("succeeded",)}
    assert set(world.nodes_of(pool())) | set(world.nodes_of(pool("other"))) == {"b"}
    assert not [line for line in world.log[drained:] if line.endswith("on a")]
    world.join_node(node("a", cores=1))
    for _ in range(2):
        world.arrive(pool("third"), 10.0)
    assert sorted(world.nodes_of(pool("third"))) == ["a", "b"]


def test_no_new_slot_starts_on_a_node_that_is_closed_and_those_there_serve_on() -> None:
    world = World([node("a", cores=8), node("b", cores=1)])
    warm = world.arrive(pool(), 1.0)
    world.run(2.0)
    assert world.nodes_of(pool()) == ["a"]
    world.stand("a", Standing.CLOSED, "node a is disconnected for the cluster")
    again = world.arrive(pool(), 1.0)
    assert again.slot_id == warm.slot_id
    # Others start where slots start, though that node is the smaller one, and the idle slot gives its place to none.
    other = world.arrive(pool("other"), 1.0)
    world.run(10.0)
    assert other.ends == ["succeeded"]
    assert world.nodes_of(pool("other")) == ["b"]
    world.stand("a", Standing.OPEN)
    world.arrive(pool("third"), 1.0)
    assert world.nodes_of(pool("third")) == ["a"]


def test_a_node_that_is_drained_in_its_cluster_begins_nothing_whatever_its_executor_says() -> None:
    world = World([node("a")])
    runs = world.arrive(pool(), 10.0)
    world.arrive(pool("other"), 0.5)
    world.run(5.0)
    world.stand("a", Standing.DRAINED, "an operator drains node a")
    assert world.nodes_of(pool("other")) == []
    waits = world.arrive(pool(), 1.0)
    world.drain_node("a")
    world.join_node(node("a"))
    world.run(30.0)
    assert (runs.ends, waits.ends, world.slots) == (["succeeded"], [], {})
    assert world.cell.waiting_for(waits.id, world.now) == (
        "no node that could run it takes tasks now; no new slot starts: an operator drains node a"
    )
    world.stand("a", Standing.OPEN)
    world.run(60.0)
    assert waits.ends == ["succeeded"]


def test_a_node_that_comes_later_stands_as_its_cluster_has_said_before() -> None:
    world = World([node("a", cores=1)])
    world.stand("b", Standing.CLOSED, "node b is marked ineligible in the cluster")
    world.join_node(node("b", cores=8))
    first, second = (world.arrive(pool(), 5.0) for _ in range(2))
    assert world.nodes_of(pool()) == ["a", "a"]
    assert "no new slot starts on 1 of 2 nodes: node b is marked ineligible in the cluster" in str(
        world.cell.waiting_for(second.id, world.now)
    )
    world.lose_node("b")
    world.join_node(node("b", cores=8))
    world.run(4.0)
    assert (first.ends, second.ends) == ([], [])
    world.stand("b", Standing.OPEN)
    world.arrive(pool("later"), 1.0)
    assert world.nodes_of(pool("later")) == ["b"]


def test_a_slot_that_does_not_start_in_time_is_dropped_and_tried_again() -> None:
    world = World([node("a")], Limits(start_timeout_s=60.0, start_backoff_s=1.0), start_s=None)
    world.arrive(pool(), 1.0)
    world.run(62.0)
    assert world.log == ["start s1 on a", "drop s1: it did not start within 60 s", "start s2 on a"]


def test_a_task_waits_for_no_longer_than_it_wants_to() -> None:
    world = World([node("a", cores=1)])
    world.arrive(pool(), 100.0)
    waits = world.arrive(pool(), 1.0, timeout_s=30.0)
    patient = world.arrive(pool(), 1.0, timeout_s=300.0)
    world.run()
    assert (waits.ends, waits.ended_at, waits.started_at) == (["expired"], 30.0, [])
    assert patient.ends == ["succeeded"]


def test_a_cell_with_nothing_to_do_wants_no_waking() -> None:
    world = World([node("a")], Limits(keep_idle_s=300.0))
    world.arrive(pool(), 1.0)
    world.run()
    assert world.slots == {}
    assert world.cell.wake_at == float("inf")
    assert world.now < 310.0


class Busy(World):
    """Checks after each event that nobody waits beside an idle slot on a node with room."""

    def _do(self, decisions: list[Decision]) -> None:
        super()._do(decisions)
        for each in self.cell.books.pools.values():
            assert not (each.waiting and any(each.fits(slot.node) for slot in each.idle)), each.key


@given(
    tasks=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from([50, 100, 200]),
            st.sampled_from([0.2, 2.0, 15.0]),
            st.floats(0.0, 40.0),
        ),
        min_size=5,
        max_size=80,
    ),
    nodes=st.integers(2, 4),
    slots=st.integers(1, 6),
    dies=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_nobody_waits_beside_a_slot_and_room_on_any_node(
    tasks: list[tuple[int, int, float, float]], nodes: int, slots: int, dies: bool
) -> None:
    """A decision looks only at the node and the pool that an event touched: that must be enough."""
    world = Busy([node(f"n{number}", slots=slots) for number in range(nodes)], Limits(patience_s=1e9))
    for account, cpu_percent, run_s, at_s in tasks:
        world.at(at_s, partial(world.arrive, pool(f"account-{account}", cpu_percent=cpu_percent), run_s))
    if dies:
        world.at(20.0, partial(world.lose_node, "n0"))
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}
    assert_books_are_empty(world.cell)


def test_room_is_kept_for_a_large_task_on_one_node_only() -> None:
    """Small tasks that never end coming keep it waiting for a while only, and go on running on the other nodes."""
    world = World([node(f"n{number}", cores=2, slots=6) for number in range(3)], Limits(patience_s=1.0))
    warm = world.arrive(pool("large", cpu_percent=200), 0.5)
    world.run(2.0)
    assert warm.ends == ["succeeded"]
    for number in range(2_000):
        world.at(2.0 + number * 0.05, partial(world.arrive, pool("flood"), 1.0))
    world.run(20.0)
    large = world.arrive(pool("large", cpu_percent=200), 2.0)
    world.run(26.0)
    assert large.started_at
    assert large.started_at[0] <= 20.0 + 1.0 + 2 * 1.0
    kept = world.cell.books.nodes.get(world.slots[large.slot_id].node_id)
    assert kept is not None
    flood = [task for task in world.tasks.values() if task.key.account == "flood" and task.started_at]
    # The others lost no turn meanwhile: four of the six cores run a task a second each.
    began = [task for task in flood if 21.0 <= task.started_at[0] < 23.0]
    assert len(began) >= 8
