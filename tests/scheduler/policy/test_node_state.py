"""Nodes as operators see them."""

from __future__ import annotations

from scheduler.policy.limits import Limits
from scheduler.policy.node import LOST_MOST, Health, NodeFacts
from scheduler.policy.node_state import features_hash, states
from scheduler.policy.tenancy import Tenancy
from tests.scheduler.policy.test_nodes import node, pool
from tests.scheduler.policy.world import World


def test_a_node_shows_what_is_held_and_its_slots_by_state() -> None:
    world = World([node("a"), node("b")])
    world.arrive(pool(), 1.0)
    world.run(2.0)
    busy = world.arrive(pool("other"), 50.0)
    world.run(3.0)
    world.arrive(pool("third"), 1.0)
    found = {state.facts.id: state for state in states(world.cell.books, 10)}
    used = world.slots[busy.slot_id].node_id
    assert (found[used].cpu_percent_held, found[used].memory_mib_held) == (100, 512)
    assert sum(state.cpu_percent_held for state in found.values()) == 100
    counts = [state.slots for state in found.values()]
    assert {kind: sum(each[kind] for each in counts) for kind in counts[0]} == {
        "idle": 1,
        "starting": 1,
        "running": 1,
    }
    assert found[used].use is None, "all accounts share all nodes"


def test_nodes_come_by_name_in_pages_and_lost_ones_are_shown_until_they_are_back() -> None:
    world = World([node(name) for name in ("c", "a", "d", "b")])
    world.drain_node("b")
    world.lose_node("c")
    seen = [(state.facts.id, state.health) for state in states(world.cell.books, 3)]
    assert seen == [("a", Health.READY), ("b", Health.DRAINING), ("c", Health.LOST)]
    assert [state.facts.id for state in states(world.cell.books, 3, after="c")] == ["d"]
    world.join_node(node("c"))
    assert {state.health for state in states(world.cell.books, 9, after="b")} == {Health.READY}


def test_lost_nodes_are_forgotten_when_they_are_many() -> None:
    world = World([])
    for number in range(LOST_MOST + 5):
        world.join_node(node(f"n{number}"))
        world.lose_node(f"n{number}")
    assert len(world.cell.books.nodes.lost) == LOST_MOST
    assert "n0" not in world.cell.books.nodes.lost


def test_a_node_shows_whom_it_serves_and_who_is_next() -> None:
    limits = Limits(account_tenancy={"bank": Tenancy.DEDICATED}, node_turn_s=1.0)
    world = World([node("a")], limits)
    world.arrive(pool("bank"), 50.0)
    world.run(5.0)
    (held,) = states(world.cell.books, 1)
    assert (held.use, held.account, held.next_account) == ("held", "bank", None)
    world.arrive(pool("shop"), 1.0)
    world.run(10.0)
    (emptied,) = states(world.cell.books, 1)
    # The next party is all those that share, which is no account.
    assert (emptied.use, emptied.account, emptied.next_account) == ("emptied", "bank", None)


def test_nodes_with_the_same_features_have_the_same_hash() -> None:
    old = NodeFacts("a", 100, 100, 1, frozenset(["sse2", "avx2"]))
    same = NodeFacts("b", 200, 200, 1, frozenset(["avx2", "sse2"]))
    assert features_hash(old.cpu_features) == features_hash(same.cpu_features)
    assert features_hash(old.cpu_features) != features_hash(frozenset(["sse2"]))
