"""An hour of a cell, played in virtual time: two accounts on three nodes, one of which dies."""

from __future__ import annotations

from functools import partial
from random import Random

from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import World

HOUR_S = 3600.0
DIES_AT_S = 1800.0


def pool(account: str, image: str = "sha256:cat", cpu_percent: int = 100) -> PoolKey:
    return PoolKey(account, image, Resources(cpu_percent, 512), Isolation.SHARED)


def test_an_hour_of_two_accounts_on_three_nodes_one_of_which_dies() -> None:
    nodes = [NodeFacts(f"n{number}", 400, 16_384, 16) for number in (1, 2, 3)]
    world = World(nodes, Limits(keep_idle_s=60.0, max_waiting=100_000))
    chance = Random(13)
    # One account sends all its work in the first minute, more than the cell does in half an hour; the other sends a
    # task now and then, of two images, for the whole hour.
    for number in range(3_000):
        world.at(number * 0.02, partial(world.arrive, pool("batch"), chance.uniform(5.0, 10.0)))
    for number in range(1_500):
        image = chance.choice(["sha256:ocr", "sha256:cat"])
        world.at(number * 2.3, partial(world.arrive, pool("steady", image), chance.uniform(0.5, 2.0)))
    world.at(DIES_AT_S, partial(world.lose_node, "n2"))
    world.run(DIES_AT_S - 0.001)
    on_dead_node = {slot.id for slot in world.slots.values() if slot.node_id == "n2"}
    running = [slot.task for slot in world.slots.values() if slot.node_id == "n2" and slot.task is not None]
    assert running, "the node dies under running tasks"
    world.run(HOUR_S)
    world.run()

    # Every task ended exactly once; those that the node took with it ran again.
    assert len(world.tasks) == 4_500
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}
    assert all(len(task.started_at) == 2 for task in running)
    assert sum(len(task.started_at) for task in world.tasks.values()) == 4_500 + len(running)
    # Nothing was started on the dead node, and its slots are gone.
    death = next(n for n, line in enumerate(world.log) if line.startswith("drop"))
    assert sum(line.startswith("drop") for line in world.log) == len(on_dead_node)
    assert not [line for line in world.log[death:] if line.endswith("on n2")]
    # The steady account is not delayed by the other's flood: it waits for the end of one of its tasks.
    waits = sorted(
        task.started_at[0] - task.arrived_at
        for task in world.tasks.values()
        if task.key.account == "steady" and len(task.started_at) == 1
    )
    assert waits[len(waits) // 2] <= 1.0
    assert waits[-1] <= 10.0
    # Both had what they asked for.
    assert min(world.used_us.values()) > 1_000_000_000
    assert_books_are_empty(world.cell)


def test_weights_share_the_cores_of_two_floods() -> None:
    """Over ten minutes in which both always have tasks waiting, the one of weight 3 gets three times as much."""
    nodes = [NodeFacts(f"n{number}", 200, 16_384, 8) for number in (1, 2, 3)]
    world = World(nodes, Limits(account_weights={"large": 3}))
    for account in ("large", "small"):
        for _ in range(3_000):
            world.arrive(pool(account), 1.0)
    world.run(600.0)
    served = {
        account: sum(bool(task.ends) for task in world.tasks.values() if task.key.account == account)
        for account in ("large", "small")
    }
    assert 2.8 < served["large"] / served["small"] < 3.2
    # Their tasks are alike, so that is how they have used the cores, too.
    assert 2.8 < world.used_us["large"] / world.used_us["small"] < 3.2


def test_weights_share_the_places_where_cores_are_many() -> None:
    world = World([NodeFacts("n1", 10_000, 1 << 20, 12)], Limits(account_weights={"large": 3}))
    for account in ("small", "large"):
        for _ in range(1_000):
            world.arrive(pool(account), 1.0)
    world.run(30.0)
    assert (len(world.nodes_of(pool("large"))), len(world.nodes_of(pool("small")))) == (9, 3)


def test_weights_share_one_place() -> None:
    """With one place for both, its slot has three tasks of the one for each of the other."""
    world = World([NodeFacts("n1", 100, 1024, 1)], Limits(account_weights={"large": 3}))
    tasks = [world.arrive(pool(account), 1.0) for account in ("large", "small") for _ in range(12)]
    world.run(30.0)
    started = sorted((task.started_at[0], task.key.account) for task in tasks if task.started_at)
    assert [account for _, account in started][:12] == ["large", "large", "large", "small"] * 3


def test_without_weights_two_floods_share_alike() -> None:
    world = World([NodeFacts("n1", 400, 16_384, 16)])
    for account in ("first", "second"):
        for _ in range(1_000):
            world.arrive(pool(account), 1.0)
    world.run(200.0)
    assert abs(world.used_us["first"] - world.used_us["second"]) <= 4_000_000
