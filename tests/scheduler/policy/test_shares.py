"""Shares of the cores, in virtual time: an account uses what it holds for as long as it holds it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

from scheduler.policy.limits import SCAN_LIMIT, Limits
from scheduler.policy.node import NodeFacts
from scheduler.policy.shares import Account, Line, Shares
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Priority, Resources
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import SimSlot, SimTask, World


def pool(account: str, cpu_percent: int = 100, priority: Priority = Priority.NORMAL) -> PoolKey:
    return PoolKey(account, "sha256:x", Resources(cpu_percent, 64), Isolation.SHARED, (), priority)


class Shared(World):
    """A world that counts the core-seconds that each account's tasks have held. `cpu`: CPU time over them."""

    def __init__(self, cores: int, weights: dict[str, int] | None = None, nodes: int = 1) -> None:
        each = [NodeFacts(f"n{n}", 100 * cores // nodes, 1 << 20, 1024) for n in range(nodes)]
        super().__init__(
            each,
            Limits(
                account_weights=weights or {},
                keep_idle_s=1e6,
                max_waiting=1 << 20,
                max_waiting_account=1 << 20,
            ),
            start_s=0.0,
        )
        self.cpu: dict[str, float] = {}

    def flood(self, key: PoolKey, run_s: float, count: int) -> list[SimTask]:
        return [self.arrive(key, run_s) for _ in range(count)]

    def held_s(self, account: str, since_s: float = 0.0) -> float:
        """Core-seconds that the account's tasks have held since then."""
        held = 0.0
        for task in self.tasks.values():
            if task.key.account == account:
                cores = task.key.resources.cpu_percent / 100
                for began in task.started_at:
                    end = min(self.now, began + task.run_s)
                    held += cores * max(0.0, end - max(began, since_s))
        return held

    def _cpu_us(self, slot: SimSlot, task: SimTask) -> int:
        return round(super()._cpu_us(slot, task) * self.cpu.get(task.key.account, 1.0))


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("cores", [4, 16])
def test_long_tasks_and_short_ones_have_the_same_share(cores: int, nodes: int) -> None:
    """Counted by tasks, who sends minutes would have sixty times as much as who sends seconds."""
    world = Shared(cores, nodes=nodes)
    world.flood(pool("minutes"), 60.0, 60 * cores)
    world.flood(pool("seconds"), 1.0, 3600 * cores)
    world.run(1800.0)
    assert world.held_s("minutes") == pytest.approx(900.0 * cores, rel=0.1)
    assert world.held_s("seconds") == pytest.approx(900.0 * cores, rel=0.1)


def test_one_core_too() -> None:
    world = Shared(1)
    world.flood(pool("minutes"), 60.0, 60)
    world.flood(pool("seconds"), 1.0, 3600)
    world.run(3600.0)
    assert world.held_s("minutes") == pytest.approx(1800.0, abs=60.0)


def test_sleepers_use_what_they_hold_though_they_compute_nothing() -> None:
    world = Shared(4)
    world.cpu["sleeper"] = 1e-6
    world.flood(pool("sleeper"), 600.0, 100)
    world.run(10.0)
    world.flood(pool("worker"), 10.0, 2000)
    world.run(7200.0)
    assert world.held_s("worker", 600.0) >= 0.45 * 4 * 6600.0


def test_cpu_time_beyond_what_is_held_is_used_too() -> None:
    """A task that computes on three cores, though it holds one, pays for three."""
    world = Shared(4)
    world.cpu["greedy"] = 3.0
    for account in ("greedy", "modest"):
        world.flood(pool(account), 5.0, 2000)
    world.run(3000.0)
    assert world.held_s("modest") / world.held_s("greedy") == pytest.approx(3.0, rel=0.1)


def test_large_tasks_and_small_ones_have_the_same_share() -> None:
    world = Shared(8)
    world.flood(pool("large", 400), 10.0, 2000)
    world.flood(pool("small", 25), 10.0, 20_000)
    world.run(2000.0)
    assert world.held_s("large") == pytest.approx(world.held_s("small"), rel=0.25)


def test_an_account_whose_tasks_fill_a_node_has_its_share_over_an_hour() -> None:
    """Each of its tasks waits until a node is empty, while two accounts keep many small tasks coming there."""
    world = Shared(8, nodes=2)
    world.flood(pool("large", 400), 120.0, 100)
    world.flood(pool("short"), 4.0, 4_000)
    world.flood(pool("long"), 60.0, 300)
    world.run(3600.0)
    for account in ("large", "short", "long"):
        assert world.held_s(account) == pytest.approx(8 * 3600.0 / 3, rel=0.1)
    waits = [
        task.started_at[0] for task in world.tasks.values() if task.key.account == "large" and task.started_at
    ]
    gaps = [later - start for start, later in pairwise(waits)]
    assert max(gaps) <= 2 * 3 * 120.0, "and it has it evenly"


@pytest.mark.parametrize("cores", [1, 6])
def test_weights_count_whatever_the_durations(cores: int) -> None:
    world = Shared(cores, {"large": 3})
    world.flood(pool("large"), 2.0, 3000 * cores)
    world.flood(pool("small"), 30.0, 200 * cores)
    world.run(3000.0)
    assert world.held_s("large") / world.held_s("small") == pytest.approx(3.0, rel=0.1)


def test_nobody_owes_for_cores_that_nobody_wanted() -> None:
    """An hour alone on all cores costs nothing: from the second's arrival on, both have the same."""
    for run_s in (1.0, 60.0):
        world = Shared(4)
        world.flood(pool("first"), run_s, round(40_000 / run_s))
        world.at(3600.0, partial(world.flood, pool("second"), run_s, round(40_000 / run_s)))
        world.run(5400.0)
        # Its running tasks end first.
        fair = 2 * 1800.0
        assert world.held_s("first", 3600.0) == pytest.approx(fair, rel=0.1)
        assert world.held_s("second", 3600.0) == pytest.approx(fair, rel=0.1)


def test_nobody_is_owed_for_time_in_which_it_wanted_nothing() -> None:
    """Two share for an hour; a third that was away gets a third from then on, not all until it has caught up."""
    world = Shared(3)
    for account in ("first", "second"):
        world.flood(pool(account), 10.0, 5000)
    world.at(3600.0, partial(world.flood, pool("third"), 10.0, 5000))
    world.run(5400.0)
    for account in ("first", "second", "third"):
        assert world.held_s(account, 3600.0) == pytest.approx(1800.0, rel=0.1)


def test_shares_come_smoothly_and_do_not_swing() -> None:
    """A second flood of long tasks gets about half of the cores within one task's duration, and keeps them."""
    world = Shared(100)
    # Ends are spread over time, as they are in life.
    for number in range(100):
        world.at(number * 0.6, partial(world.arrive, pool("first"), 60.0))
    world.run(60.0)
    world.flood(pool("first"), 60.0, 2000)
    world.flood(pool("second"), 60.0, 2000)
    world.run(121.0)
    while world.now < 600.0:
        running = [slot.task.key.account for slot in world.slots.values() if slot.task is not None]
        assert 35 <= running.count("second") <= 65, f"at {world.now:g} s"
        world.run(world.now + 7.0)


def test_spare_tasks_do_not_use_the_share_of_their_account() -> None:
    world = Shared(2)
    world.flood(pool("both", priority=Priority.SPARE), 50.0, 100)
    world.run(500.0)
    for account in ("both", "other"):
        world.flood(pool(account), 5.0, 1000)
    world.run(1500.0)
    normal = {
        account: sum(5.0 for task in world.tasks.values() if task.ends and task.key == pool(account))
        for account in ("both", "other")
    }
    assert normal["both"] == pytest.approx(normal["other"], rel=0.05)
    assert normal["both"] + normal["other"] >= 1900.0


def test_memory_is_charged_like_the_cores_that_it_is_worth() -> None:
    """One account's tasks hold all memory and a hundredth of a core, another's hold cores: they share the time."""
    world = World([NodeFacts("n1", 400, 4096, 64)])
    dear = PoolKey("memory", "sha256:x", Resources(1, 4096), Isolation.SHARED)
    for _ in range(1_000):
        world.arrive(dear, 1.0)
        world.arrive(pool("cores"), 1.0)
    world.run(400.0)
    held_s = {
        key: sum(
            task.ended_at - task.started_at[0]
            for task in world.tasks.values()
            if task.ends and task.key == key
        )
        for key in (dear, pool("cores"))
    }
    assert held_s[dear] == pytest.approx(held_s[pool("cores")] / 4, rel=0.15)
    assert held_s[dear] >= 100.0


def test_a_newcomer_comes_before_those_that_have_used_as_little_as_anybody() -> None:
    """Both cores are free at the same moment. The next task on both of them comes after the newcomer's."""
    world = Shared(2)
    world.flood(pool("large", cpu_percent=200), 10.0, 3)
    world.run(5.0)
    task = world.arrive(pool("new"), 1.0)
    world.run(10.5)
    assert task.started_at == [10.0]


def test_accounts_without_pools_are_forgotten() -> None:
    world = World([NodeFacts("n1", 200, 1024, 8)], Limits(keep_idle_s=5.0))
    for number in range(20):
        world.arrive(pool(f"account-{number}"), 1.0)
    world.run()
    assert_books_are_empty(world.cell)


def test_a_decision_looks_at_few_of_many_accounts_whose_use_grows_alike() -> None:
    looked_at = 0

    def used(account: Account, now: float) -> float:
        nonlocal looked_at
        looked_at += 1
        return account.used(now)

    line, shares = Line(used), Shares({})
    for number in range(1000):
        account = shares.account(f"account-{number}")
        account.held = 100
        line.put(account, 0.0)
    for now in (1.0, 1.01, 1.02):
        looked_at = 0
        line.first(now)
        assert looked_at <= SCAN_LIMIT + 1
    # All have been looked at after some decisions, and the first of all is found.
    account = shares.account("least")
    account.spent = 90.0
    line.put(account, 1.02)
    first = [line.first(1.03 + number / 1000) for number in range(20)]
    assert first[-1] is account
