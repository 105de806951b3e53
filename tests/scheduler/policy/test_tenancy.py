"""Accounts that need nodes of their own: a node serves one at a time, is emptied and cleaned between, and nobody
starves. `World` asserts the wall itself at each start of a slot."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.policy.tenancy import Parties, Tenancy, Tenure, Use
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Priority, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import SimTask, World

ALONE = {"bank": Tenancy.DEDICATED, "clinic": Tenancy.DEDICATED}


def node(node_id: str, cores: int = 2, slots: int = 8, features: str = "") -> NodeFacts:
    return NodeFacts(node_id, 100 * cores, 8192, slots, frozenset(features.split()))


def pool(
    account: str, image: str = "cat", features: str = "", priority: Priority = Priority.NORMAL
) -> PoolKey:
    resources = Resources(100, 512)
    return PoolKey(account, image, resources, Isolation.SHARED, tuple(features.split()), priority)


def world_of(*nodes: NodeFacts, clean_s: float | None = 0.05, **limits: object) -> World:
    chosen = Limits(**{"account_tenancy": ALONE, **limits})  # type: ignore[arg-type]
    return World(list(nodes), chosen, clean_s=clean_s)


def waiting_for(world: World, task: SimTask) -> str | None:
    return world.cell.waiting_for(task.id, world.now)


def use_of(world: World, node_id: str) -> Use:
    found = world.cell.books.nodes.get(node_id)
    assert found is not None
    assert found.tenure is not None
    return found.tenure.use


# -- who is where


def test_an_account_of_its_own_node_and_the_others_do_not_meet() -> None:
    world = world_of(node("a"), node("b"))
    for account in ("bank", "shop", "mill"):
        world.arrive(pool(account), 5.0)
    world.run(1.0)
    (own,) = world.nodes_of(pool("bank"))
    shared = world.nodes_of(pool("shop")) + world.nodes_of(pool("mill"))
    assert len(shared) == 2
    assert own not in shared


def test_a_set_may_give_every_account_nodes_of_its_own() -> None:
    world = world_of(node("a"), node("b"), account_tenancy={}, tenancy=Tenancy.DEDICATED)
    world.arrive(pool("shop"), 5.0)
    world.arrive(pool("mill"), 5.0)
    assert world.nodes_of(pool("shop")) != world.nodes_of(pool("mill"))


def test_an_account_fills_its_node_before_it_takes_another() -> None:
    world = world_of(node("a"), node("b"), node("c"))
    for image in ("cat", "ocr", "cat"):
        world.arrive(pool("bank", image), 5.0)
    world.run(1.0)
    assert len({*world.nodes_of(pool("bank", "cat")), *world.nodes_of(pool("bank", "ocr"))}) == 2


def test_accounts_that_share_fill_their_nodes_before_they_take_a_free_one() -> None:
    world = world_of(node("a"), node("b"), node("c"))
    for account in ("shop", "mill"):
        world.arrive(pool(account), 5.0)
    assert len({*world.nodes_of(pool("shop")), *world.nodes_of(pool("mill"))}) == 1


# -- a node changes hands


def test_a_node_is_given_up_once_it_was_idle_for_long_enough() -> None:
    world = world_of(node("a"), keep_idle_s=30.0)
    world.arrive(pool("bank"), 1.0)
    world.run(20.0)
    assert use_of(world, "a") is Use.HELD
    world.run()
    assert use_of(world, "a") is Use.FREE


def test_a_newcomer_waits_for_no_keep_alive_of_another() -> None:
    """The former account's slots end at once, and are gone before the newcomer's start."""
    world = world_of(node("a"), keep_idle_s=300.0)
    world.arrive(pool("bank"), 1.0)
    world.run(10.0)
    task = world.arrive(pool("shop"), 1.0)
    world.run(13.0)
    assert task.ends == ["succeeded"]
    assert world.log == ["start s1 on a", "stop s1", "start s2 on a"]


def test_a_node_that_is_not_clean_is_nobody_s() -> None:
    world = world_of(node("a"), clean_s=None)
    world.arrive(pool("bank"), 1.0)
    world.run(10.0)
    (old,) = world.slots.values()
    task = world.arrive(pool("shop"), 1.0)
    world.run(60.0)
    assert task.started_at == []
    assert waiting_for(world, task) == (
        "it waits for a node that accounts share: one is being cleaned of another account's slots"
    )
    assert use_of(world, "a") is Use.EMPTIED
    world.clean(old)
    world.run(62.0)
    assert task.ends == ["succeeded"]


def test_a_node_that_was_away_is_cleaned_before_it_is_another_s() -> None:
    """Its slots may be there still: the node was only out of reach."""
    world = world_of(node("a"), clean_s=None)
    world.arrive(pool("bank"), 100.0)
    world.run(5.0)
    (old,) = world.slots.values()
    world.lose_node("a")
    for task in list(world.tasks.values()):
        world.leave(task)
    world.join_node(node("a"))
    task = world.arrive(pool("clinic"), 1.0)
    world.run(30.0)
    assert task.started_at == []
    world.clean(old)
    world.run(40.0)
    assert task.ends == ["succeeded"]


def test_a_node_that_is_gone_for_good_is_forgotten() -> None:
    world = world_of(node("a"), node("b"))
    world.arrive(pool("bank"), 100.0)
    world.run(1.0)
    (slot,) = world.slots.values()
    world.lose_node(slot.node_id)
    world.run(10.0)
    parties = world.cell.books.parties
    assert parties is not None
    assert slot.node_id not in parties._tenures


def test_no_slot_starts_while_those_of_an_earlier_run_are_there() -> None:
    world = world_of(node("a"))
    world._do(world.cell.leftovers(world.now, gone=False))
    task = world.arrive(pool("bank"), 1.0)
    world.run(5.0)
    assert world.log == []
    assert waiting_for(world, task) == (
        "it waits until the slots of an earlier run of the set are removed from the nodes"
    )
    world._do(world.cell.leftovers(world.now, gone=True))
    world.run(10.0)
    assert task.ends == ["succeeded"]


def test_what_runs_ends_before_its_node_is_another_s() -> None:
    world = world_of(node("a"), node_turn_s=2.0)
    runs = [world.arrive(pool("bank"), 20.0) for _ in range(2)]
    world.run(5.0)
    task = world.arrive(pool("clinic"), 1.0)
    assert waiting_for(world, task) == (
        "it waits for a node of its own: the only node that suits it serves another account"
    )
    world.run(8.0)
    assert waiting_for(world, task) == (
        "it waits for a node of its own: one is being emptied; tasks of another account end there first (2)"
    )
    later = world.arrive(pool("bank"), 1.0)
    world.run(20.0)
    assert task.started_at == []
    world.run(25.0)
    assert [each.ends for each in (*runs, task)] == [["succeeded"]] * 3
    assert later.started_at == [] or later.started_at[0] > task.ended_at
    world.run()
    assert later.ends == ["succeeded"]


def test_spare_tasks_give_way_on_a_node_that_another_needs() -> None:
    world = world_of(node("a"))
    spare = world.arrive(pool("bank", priority=Priority.SPARE), 500.0)
    world.run(5.0)
    task = world.arrive(pool("shop"), 1.0)
    world.run(10.0)
    assert task.ends == ["succeeded"]
    assert spare.gave_way == 1


def test_a_claim_that_nobody_makes_any_longer_is_withdrawn() -> None:
    world = world_of(node("a"), node_turn_s=2.0)
    world.arrive(pool("bank"), 20.0)
    world.run(5.0)
    claims = world.arrive(pool("clinic"), 1.0)
    world.run(8.0)
    assert use_of(world, "a") is Use.EMPTIED
    world.leave(claims)
    again = world.arrive(pool("bank", "ocr"), 1.0)
    world.run(10.0)
    assert use_of(world, "a") is Use.HELD
    assert again.ends == ["succeeded"]


def test_a_node_kept_for_an_account_that_left_is_free_again() -> None:
    world = world_of(node("a"), clean_s=None)
    world.arrive(pool("bank"), 1.0)
    world.run(10.0)
    (old,) = world.slots.values()
    claims = world.arrive(pool("clinic"), 1.0)
    world.run(13.0)
    world.leave(claims)
    world.clean(old)
    task = world.arrive(pool("shop"), 1.0)
    world.run(20.0)
    assert task.ends == ["succeeded"]


def test_a_draining_node_is_promised_to_nobody() -> None:
    world = world_of(node("a"), node("b"), node_turn_s=2.0)
    for _ in range(4):
        world.arrive(pool("bank"), 10.0)
    world.run(5.0)
    task = world.arrive(pool("clinic"), 1.0)
    world.run(8.0)
    (promised,) = [name for name in "ab" if use_of(world, name) is Use.EMPTIED]
    world.drain_node(promised)
    world.run(9.0)
    assert use_of(world, promised) is Use.HELD
    world.run(30.0)
    assert task.ends == ["succeeded"]


# -- shares


def test_nodes_are_shared_out_by_what_parties_hold() -> None:
    """One account holds all four nodes; another wants as many."""
    world = world_of(*(node(name) for name in "abcd"))
    for _ in range(200):
        world.arrive(pool("bank"), 5.0)
    world.run(20.0)
    for _ in range(200):
        world.arrive(pool("clinic"), 5.0)
    world.run(60.0)
    held = {account: len(set(world.nodes_of(pool(account)))) for account in ALONE}
    assert held == {"bank": 2, "clinic": 2}


def test_weights_count_for_nodes() -> None:
    world = world_of(*(node(name) for name in "abcd"), account_weights={"clinic": 3})
    for account in ALONE:
        for _ in range(200):
            world.arrive(pool(account), 5.0)
    world.run(60.0)
    held = {account: len(set(world.nodes_of(pool(account)))) for account in ALONE}
    assert held == {"bank": 1, "clinic": 3}


def test_more_accounts_than_nodes_take_turns() -> None:
    """Nobody starves, though each has work for ever."""
    world = world_of(node("a"), account_tenancy={}, tenancy=Tenancy.DEDICATED, node_turn_s=10.0)
    accounts = [f"account-{number}" for number in range(5)]
    for account in accounts:
        for _ in range(1000):
            world.arrive(pool(account), 1.0)
    world.run(300.0)
    done = dict.fromkeys(accounts, 0)
    for task in world.tasks.values():
        done[task.key.account] += task.ends == ["succeeded"]
    assert min(done.values()) > 0.6 * max(done.values()), done
    # Little is lost by the changes: two cores for 300 s.
    assert sum(done.values()) > 400


def test_a_flood_of_one_account_leaves_the_others_their_node() -> None:
    world = world_of(node("a"), node("b"))
    for _ in range(500):
        world.arrive(pool("bank"), 5.0)
    world.run(30.0)
    task = world.arrive(pool("shop"), 1.0)
    world.run(45.0)
    assert task.ends == ["succeeded"]


def test_a_rare_node_is_claimed_by_who_needs_just_it() -> None:
    world = world_of(node("rare", features="avx512f"), node("usual"), node_turn_s=5.0)
    for _ in range(500):
        world.arrive(pool("shop"), 2.0)
    world.run(10.0)
    task = world.arrive(pool("bank", features="avx512f"), 1.0)
    world.run(30.0)
    assert task.ends == ["succeeded"]


# -- the table


def test_an_illegal_move_of_a_tenancy_raises() -> None:
    tenure = Tenure("a", Parties(Tenancy.DEDICATED, {}))
    tenure.slot_added("bank", 1.0)
    with pytest.raises(AssertionError):
        tenure.slot_added("clinic", 2.0)
    tenure.promise("clinic")
    with pytest.raises(AssertionError, match="cannot go from emptied to emptied"):
        tenure.promise("shop")


# -- any history


@given(
    tasks=st.lists(
        st.tuples(
            st.sampled_from(["bank", "clinic", "shop", "mill"]),
            st.sampled_from(["cat", "ocr"]),
            st.sampled_from([0.2, 2.0, 15.0]),
            st.floats(0.0, 60.0),
            st.sampled_from([None, None, 5.0]),
        ),
        min_size=3,
        max_size=60,
    ),
    nodes=st.integers(1, 4),
    slots=st.integers(1, 6),
    clean_s=st.sampled_from([0.0, 0.05, 3.0]),
    events=st.lists(st.tuples(st.sampled_from(["lose", "drain", "join"]), st.floats(0.0, 60.0)), max_size=6),
    everyone=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_two_accounts_never_meet_and_everybody_is_served(
    tasks: list[tuple[str, str, float, float, float | None]],
    nodes: int,
    slots: int,
    clean_s: float,
    events: list[tuple[str, float]],
    everyone: bool,
) -> None:
    tenancy = Tenancy.DEDICATED if everyone else Tenancy.SHARED
    names = [f"n{number}" for number in range(nodes)]
    limits = {"tenancy": tenancy, "keep_idle_s": 20.0, "node_turn_s": 4.0}
    world = world_of(*(node(name, slots=slots) for name in names), clean_s=clean_s, **limits)

    def arrive(key: PoolKey, run_s: float, timeout_s: float | None) -> None:
        # Where no node is there, a set refuses all tasks.
        if len(world.cell.books.nodes):
            world.arrive(key, run_s, timeout_s=timeout_s)

    for account, image, run_s, at_s, timeout_s in tasks:
        world.at(at_s, partial(arrive, pool(account, image), run_s, timeout_s))

    def lose() -> None:
        if world.cell.books.nodes.get("n0") is not None:
            world.lose_node("n0")

    for what, at_s in events:
        happens = {
            "lose": lose,
            "drain": lambda: world.drain_node("n0"),
            "join": lambda: world.join_node(node("n0", slots=slots)),
        }[what]
        world.at(at_s, happens)
    world.at(61.0, lambda: world.join_node(node("n0", slots=slots)))
    world.run(2000.0)
    for task in world.tasks.values():
        assert len(task.ends) == 1, task
        assert task.ends[0] in ("succeeded", "given up") or (task.timeout_s and task.ends == ["expired"]), (
            task
        )
    world.run()
    assert world.cell.wake_at == float("inf")
    assert_books_are_empty(world.cell)
    assert {use_of(world, each.facts.id) for each in world.cell.books.nodes} <= {Use.FREE}
