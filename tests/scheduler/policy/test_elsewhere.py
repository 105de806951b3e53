"""Tasks that wait beside an idle slot on a full node, while another node has cores."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.policy.elsewhere import LOOK_EVERY_S
from scheduler.policy.limits import KeepAlive, Limits
from scheduler.policy.node import Node, NodeFacts, Standing
from scheduler.policy.pool import Pool
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Priority, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import World

START_S = 0.3
SOON_S = LOOK_EVERY_S + START_S + 0.01


def node(node_id: str, cores: int = 1, places: int = 4) -> NodeFacts:
    return NodeFacts(node_id, 100 * cores, 4096, places)


def pool(account: str, cpu_percent: int = 100, priority: Priority = Priority.NORMAL) -> PoolKey:
    return PoolKey(account, "sha256:x", Resources(cpu_percent, 64), Isolation.SHARED, (), priority)


def beside_a_full_node(world: World, key: PoolKey) -> None:
    """The pool has one idle slot, on n1, whose core another account holds."""
    world.arrive(key, 0.1)
    world.run(1.0)
    world.arrive(pool("eve"), 1_000.0)
    world.run(2.0)
    assert world.nodes_of(key) == world.nodes_of(pool("eve")) == ["n1"]


@pytest.mark.parametrize("priority", list(Priority))
def test_a_task_whose_only_slot_is_on_a_full_node_starts_on_another(priority: Priority) -> None:
    key = pool("acme", priority=priority)
    world = World([node("n1")])
    beside_a_full_node(world, key)
    world.join_node(node("n2"))
    task = world.arrive(key, 1.0)
    world.run(world.now + SOON_S)
    assert [world.slots[task.slot_id].node_id] == ["n2"]
    # The old slot is kept: its node may have room again.
    assert world.nodes_of(key) == ["n1", "n2"]


def test_a_slot_that_nobody_waits_for_gives_its_place_there() -> None:
    world = World([node("n1")])
    beside_a_full_node(world, pool("acme"))
    world.join_node(node("n2", places=1))
    world.arrive(pool("other"), 0.1)
    world.run(3.0)
    assert world.nodes_of(pool("other")) == ["n2"]
    task = world.arrive(pool("acme"), 1.0)
    world.run(world.now + SOON_S)
    assert task.started_at
    assert world.nodes_of(pool("other")) == []


def test_a_pool_with_as_many_slots_as_it_may_have_moves_one() -> None:
    """Two cores are two slots at most, and both were started on one node while the other was closed."""
    key = pool("acme")
    world = World([node("n1"), node("n2")], Limits(keep_alive=KeepAlive.FIXED))
    world.stand("n2", Standing.CLOSED, "an operator looks at it")
    for _ in range(2):
        world.arrive(key, 0.1)
    world.run(2.0)
    world.arrive(pool("eve"), 1_000.0)
    world.run(3.0)
    assert world.nodes_of(key) == ["n1", "n1"]
    world.stand("n2", Standing.OPEN)
    task = world.arrive(key, 1.0)
    world.run(world.now + SOON_S)
    assert task.started_at
    assert world.nodes_of(key) == ["n1", "n2"]


def test_a_cell_whose_tasks_wait_for_cores_alone_starts_no_slots() -> None:
    world = World([node("n1"), node("n2")])
    for account in ("acme", "bolt"):
        world.arrive(pool(account), 0.1)
    world.run(1.0)
    for _ in range(2):
        world.arrive(pool("eve"), 1_000.0)
    world.run(2.0)
    starts = [line for line in world.log if line.startswith("start")]
    for account in ("acme", "bolt"):
        world.arrive(pool(account), 0.1)
    world.run(60.0)
    assert [line for line in world.log if line.startswith("start")] == starts


def test_idle_slots_that_hold_all_places_give_one_to_a_spare_task_for_which_there_are_cores() -> None:
    world = World([node("n1", cores=2, places=2)], Limits(keep_idle_s=300.0))
    for image in ("a", "b"):
        world.arrive(PoolKey("eve", image, Resources(100, 64), Isolation.SHARED), 0.1)
    world.run(0.5)
    assert [slot.task for slot in world.slots.values()] == [None, None]
    spare = [world.arrive(pool("seller", priority=Priority.SPARE), 1_000.0) for _ in range(3)]
    world.run(0.9)
    assert not any(task.started_at for task in spare), "a slot that has just had a task may get another"
    world.run(3.0)
    assert sum(bool(task.started_at) for task in spare) == 2
    # It is given back as soon as a normal task comes.
    back = world.arrive(pool("eve"), 0.1)
    world.run(world.now + START_S + 0.1)
    assert back.started_at


class Watched(World):
    """Notes since when a node has had cores for a pool whose task waits, and a place: free, or of an idle slot."""

    def __init__(self, nodes: list[NodeFacts]) -> None:
        super().__init__(nodes, Limits(patience_s=1e9, keep_idle_s=20.0), start_s=START_S)
        self.longest_idle_s = 0.0
        self._since: dict[tuple[Pool, Node], float] = {}

    def watch(self, every_s: float) -> None:
        books, since = self.cell.books, self._since
        fits = {
            (each, machine)
            for each in books.pools.values()
            if len(each.waiting) > len(each.starting)
            for machine in books.nodes
            if self._could_start(each, machine)
        }
        for pair in [pair for pair in since if pair not in fits]:
            del since[pair]
        for pair in fits:
            self.longest_idle_s = max(self.longest_idle_s, self.now - since.setdefault(pair, self.now))
        if any(not task.ends for task in self.tasks.values()):
            self.at(self.now + every_s, partial(self.watch, every_s))

    def _could_start(self, each: Pool, machine: Node) -> bool:
        slots = self.cell.books.slots_on.get(machine, ())
        place = machine.slots < machine.max_slots or any(
            slot in slot.pool.idle and len(slot.pool.idle) > len(slot.pool.waiting) for slot in slots
        )
        room = machine.free_cpu - machine.starting_cpu
        return place and room >= each.cpu_percent and machine.free_memory >= each.memory_mib


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
    places=st.integers(2, 6),
)
@settings(max_examples=100, deadline=None)
def test_no_node_has_cores_for_a_waiting_task_for_longer_than_a_look(
    tasks: list[tuple[int, int, float, float]], nodes: int, places: int
) -> None:
    world = Watched([node(f"n{number}", cores=2, places=places) for number in range(nodes)])
    for account, cpu_percent, run_s, at_s in tasks:
        world.at(at_s, partial(world.arrive, pool(f"account-{account}", cpu_percent), run_s))
    world.at(0.0, partial(world.arrive, pool("account-0"), 0.1))
    world.at(0.01, partial(world.watch, 0.05))
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}
    assert world.longest_idle_s <= 2 * LOOK_EVERY_S
    assert_books_are_empty(world.cell)
