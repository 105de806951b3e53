"""On a cluster each slot reserves memory, also while it is idle: a newcomer must not wait for another's keep-alive."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from scheduler.errors import NoRoom
from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts, Standing
from scheduler.task import Isolation, Priority
from tests.scheduler.policy.house import assert_books_are_empty, pool
from tests.scheduler.policy.world import SimSlot, World

BLOCKED_S = 3.0
"""How long the launcher lets an order wait for room, as `NomadSettings.blocked_wait_s` does."""
KEEP_IDLE_S = 1_000.0
FULL = "no node has enough free memory: 1 node is full"


def node(node_id: str, cores: int = 2, memory_mib: int = 2048) -> NodeFacts:
    return NodeFacts(node_id, 100 * cores, memory_mib, max_slots=32)


class Cluster(World):
    """A world whose nodes reserve the memory of each slot until nothing of it is left.

    An order that finds no room waits for it for `BLOCKED_S`, and fails then; the first that waits comes first.
    `others_mib`: what jobs that are not this set's have of each node, which the cell does not know.
    """

    def __init__(self, nodes: list[NodeFacts], others_mib: int = 0) -> None:
        super().__init__(nodes, Limits(keep_idle_s=KEEP_IDLE_S))
        self.room = {each.id: each.memory_mib - others_mib for each in nodes}
        self.reserved: dict[str, int] = {}
        self.ordered: dict[str, SimSlot] = {}
        self.refused = 0

    def clean(self, slot: SimSlot) -> None:
        self.room[slot.node_id] += self.reserved.pop(slot.id, 0)
        self._place()
        super().clean(slot)

    def _start(self, slot_id: str) -> None:
        self.ordered[slot_id] = self.slots[slot_id]
        self.at(self.now + BLOCKED_S, lambda: self._refuse(slot_id))
        self._place()

    def _place(self) -> None:
        for slot_id, slot in list(self.ordered.items()):
            memory_mib = slot.pool.resources.memory_mib
            if slot_id not in self.slots:
                del self.ordered[slot_id]
            elif self.room[slot.node_id] >= memory_mib:
                del self.ordered[slot_id]
                self.room[slot.node_id] -= memory_mib
                self.reserved[slot_id] = memory_mib
                super()._start(slot_id)

    def _refuse(self, slot_id: str) -> None:
        if self.ordered.pop(slot_id, None) is not None and slot_id in self.slots:
            self.refused += 1
            self._gone(slot_id)
            self._do(self.cell.slot_gone(slot_id, FULL, self.now, NoRoom(FULL)))

    def idle(self) -> int:
        return sum(slot.ready and slot.task is None for slot in self.slots.values())


def full_of_idle_slots(accounts: int = 4, memory_mib: int = 512) -> Cluster:
    """A node of 2 GiB whose memory is reserved by one idle slot of each account; account 0's is the coldest."""
    world = Cluster([node("a", memory_mib=2048)])
    for account in range(accounts):
        world.at(float(account), partial(world.arrive, pool(f"idler-{account}", memory_mib=memory_mib), 0.1))
    world.run(100.0)
    assert world.idle() == accounts
    return world


def test_the_coldest_idle_slot_gives_its_memory_to_a_newcomer() -> None:
    world = full_of_idle_slots()
    task = world.arrive(pool("new"), 0.1)
    world.run(110.0)
    assert task.ends == ["succeeded"]
    assert task.started_at[0] - task.arrived_at < 5.0
    assert [line for line in world.log if line.startswith("stop")] == ["stop s1"]


def test_as_many_slots_stop_as_a_large_newcomer_needs() -> None:
    world = full_of_idle_slots()
    task = world.arrive(pool("new", memory_mib=1200), 0.1)
    world.run(110.0)
    assert task.ends == ["succeeded"]
    assert [line for line in world.log if line.startswith("stop")] == ["stop s1", "stop s2", "stop s3"]


def test_free_memory_and_that_of_all_idle_slots_together_are_enough() -> None:
    world = full_of_idle_slots(accounts=1)
    task = world.arrive(pool("new", memory_mib=2000), 0.1)
    world.run(110.0)
    assert task.ends == ["succeeded"]


def test_slots_of_one_moment_that_find_no_room_are_one_failure() -> None:
    world = full_of_idle_slots()
    tasks = [world.arrive(pool("new"), 20.0) for _ in range(2)]
    world.run(110.0)
    assert [task.started_at[0] - task.arrived_at < 6.0 for task in tasks] == [True, True]
    assert world.idle() == 2


def test_slots_on_other_nodes_stay() -> None:
    world = Cluster([node("a", memory_mib=1024), node("b", memory_mib=1024)])
    for account in range(4):
        world.at(float(account), partial(world.arrive, pool(f"idler-{account}", f"image-{account}"), 0.1))
    world.run(100.0)
    task = world.arrive(pool("new", memory_mib=1024), 0.1)
    world.run(110.0)
    stopped = {line.split()[1] for line in world.log if line.startswith("stop")}
    started = dict(
        line.removeprefix("start ").split(" on ") for line in world.log if line.startswith("start")
    )
    assert task.ends == ["succeeded"]
    assert len(stopped) == 2
    assert {started[slot_id] for slot_id in stopped} == {started[task.slot_id]}


def test_idle_slots_stay_where_their_memory_would_not_be_enough() -> None:
    world = Cluster([node("a", cores=4)])
    warm = world.arrive(pool("warm", memory_mib=64), 0.1)
    large = world.arrive(pool("acme", memory_mib=1400), 100.0)
    world.arrive(pool("acme"), 100.0)
    world.run(50.0)
    second = world.arrive(pool("acme"), 1.0)
    world.run(90.0)
    assert (warm.ends, large.ends, world.refused > 2) == (["succeeded"], [], True)
    assert (second.ends, [line for line in world.log if line.startswith("stop")]) == ([], [])


@pytest.mark.parametrize(
    "key",
    [
        msgspec.structs.replace(pool("new"), priority=Priority.SPARE),
        pool("new", isolation=Isolation.FRESH),
    ],
    ids=["spare tasks", "slots for tasks to come"],
)
def test_no_slot_stops_for_what_takes_only_what_is_left(key: object) -> None:
    world = full_of_idle_slots()
    task = world.arrive(key, 0.1, timeout_s=20.0)  # type: ignore[arg-type]
    world.run(200.0)
    stops = sum(line.startswith("stop") for line in world.log if line != f"stop {task.slot_id}")
    # One for the task itself, if it is a normal one; none for the next, which may never come.
    assert stops == (0 if task.ends == ["expired"] else 1)
    assert task.ends == ["expired"] or key == pool("new", isolation=Isolation.FRESH)


def test_no_slot_stops_on_a_node_that_takes_no_new_ones() -> None:
    world = full_of_idle_slots()
    world.arrive(pool("new"), 0.1)
    world.stand("a", Standing.CLOSED, "it is marked ineligible")
    world.run(130.0)
    assert (world.refused, world.idle()) == (1, 4)


def test_a_start_that_fails_for_another_reason_stops_nobody() -> None:
    world = full_of_idle_slots()
    world.arrive(pool("new"), 0.1)
    slot_id = next(slot.id for slot in world.slots.values() if not slot.ready)
    world._gone(slot_id)
    world._do(world.cell.slot_gone(slot_id, "the engine failed", world.now))
    assert not any(line.startswith("stop") for line in world.log)
    assert world.idle() == 4


def test_a_busy_slot_gives_its_memory_after_its_task_to_an_account_that_has_none() -> None:
    world = Cluster([node("a", cores=4, memory_mib=2048)])
    flood = [world.arrive(pool("flood"), 2.0) for _ in range(200)]
    world.run(20.0)
    task = world.arrive(pool("new"), 0.1)
    world.run(50.0)
    assert task.ends == ["succeeded"]
    world.run(300.0)
    assert {tuple(each.ends) for each in flood} == {("succeeded",)}
    assert {each.attempts for each in flood} == {1}


def test_a_spare_task_gives_way_to_a_normal_one_whose_slot_finds_no_memory() -> None:
    world = Cluster([node("a", cores=8, memory_mib=2048)])
    spare = msgspec.structs.replace(pool("spare"), priority=Priority.SPARE)
    tasks = [world.arrive(spare, 1_000.0) for _ in range(4)]
    world.run(20.0)
    task = world.arrive(pool("new"), 0.1)
    world.run(40.0)
    assert task.ends == ["succeeded"]
    assert sum(each.gave_way for each in tasks) == 1


def stops(world: Cluster) -> int:
    return sum(line.startswith("stop") for line in world.log)


@pytest.mark.parametrize("memory_mib", [600, 1100, 1500])
def test_memory_that_the_cluster_never_offers_costs_few_warm_slots_once(memory_mib: int) -> None:
    """Other jobs have 1.5 GiB of the node, of which the set knows nothing."""
    world = Cluster([node("a", memory_mib=2048)], others_mib=1536)
    for account in range(8):
        world.at(float(account), partial(world.arrive, pool(f"idler-{account}", memory_mib=64), 0.1))
    world.run(100.0)
    assert world.idle() == 8
    world.arrive(pool("new", memory_mib=memory_mib), 0.1, timeout_s=800.0)
    world.run(160.0)
    stopped, refused = stops(world), world.refused
    # Half of the idle slots stay, and each start waits for longer than the one before.
    assert (stopped, world.idle(), refused <= 8) == (4, 4, True)
    world.run(800.0)
    assert stops(world) == stopped
    # It starts no more often than every 30 s.
    assert world.refused - refused <= 640 / 30


def test_an_account_that_asks_for_ever_new_amounts_in_vain_empties_no_node() -> None:
    world = Cluster([node("a", memory_mib=2048)], others_mib=1536)
    for account in range(8):
        world.at(float(account), partial(world.arrive, pool(f"idler-{account}", memory_mib=64), 0.1))
    for number in range(100):
        new = pool("new", memory_mib=1500 - number)
        world.at(100.0 + 5 * number, partial(world.arrive, new, 0.1, timeout_s=100.0))
    world.run(700.0)
    assert (stops(world), world.idle()) == (4, 4)


def test_slots_for_tasks_to_come_do_not_take_the_memory_that_others_gave() -> None:
    """Both of the large slots that are kept ready are idle. One gives its memory, and none starts in its place."""
    world = Cluster([node("a", cores=8, memory_mib=2048)])
    fresh = pool("fresh", memory_mib=900, isolation=Isolation.FRESH)
    for number in range(20):
        world.at(0.5 * number, partial(world.arrive, fresh, 0.1))
    world.run(30.0)
    tasks = [world.arrive(pool(f"new-{number}", memory_mib=700), 5.0) for number in range(2)]
    world.run(60.0)
    assert [task.ends for task in tasks] == [["succeeded"]] * 2
    assert max(task.started_at[0] - task.arrived_at for task in tasks) < 12.0


def test_a_large_newcomer_is_served_beside_a_flood_of_small_fresh_slots() -> None:
    """A fresh slot ends with its task: without a kept node, the next small one would have its memory at once."""
    world = Cluster([node("a", cores=32, memory_mib=2048)])
    flood = pool("flood", memory_mib=128, isolation=Isolation.FRESH)
    for number in range(3_000):
        world.at(0.05 * number, partial(world.arrive, flood, 2.0))
    world.run(20.0)
    task = world.arrive(pool("new", memory_mib=1500), 1.0)
    world.run(50.0)
    assert task.ends == ["succeeded"]
    assert task.started_at[0] - task.arrived_at < 15.0


def test_a_node_is_kept_no_longer_than_a_task_waits_for_it() -> None:
    world = full_of_idle_slots()
    task = world.arrive(pool("new", memory_mib=1200), 0.1)
    world.run(103.1)
    (kept,) = world.cell.reclaim.kept
    assert kept.kept_for == {pool("new", memory_mib=1200)}
    world.leave(task)
    world.run(104.0)
    assert (world.cell.reclaim.kept, kept.kept_for) == ({}, set())


@pytest.mark.parametrize("nodes", [1, 3])
def test_others_start_in_what_is_left_beside_a_newcomer_that_waits_for_a_busy_slot(
    nodes: int,
) -> None:
    """On each node a task of an hour holds what the large newcomer waits for. The rest is not idle for so long."""
    world = Cluster([node(name, cores=64, memory_mib=4096) for name in "abc"[:nodes]])
    for _ in range(2 * nodes):
        world.arrive(pool("long", memory_mib=1024), 3_000.0)
    world.run(10.0)
    large = [world.arrive(pool("large", memory_mib=2560), 1.0) for _ in range(nodes)]
    world.run(60.0)
    small = [world.arrive(pool(f"small-{number}", memory_mib=128), 3_500.0) for number in range(5 * nodes)]
    world.run(200.0)
    # One slot of 1 GiB goes after its task. Beside the other and the newcomer, 512 MiB are left.
    assert sum(bool(task.started_at) for task in small) == 4 * nodes
    assert not any(task.started_at for task in large)
    world.run(3_100.0)
    assert [task.ends for task in large] == [["succeeded"]] * nodes
    world.run(10_000.0)
    assert [task.ends for task in small] == [["succeeded"]] * 5 * nodes


@given(
    tasks=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from([128, 512, 1024, 2048]),
            st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.SPARE]),
            st.sampled_from(list(Isolation)),
            st.floats(0.0, 60.0),
            st.floats(0.01, 20.0),
        ),
        min_size=1,
        max_size=20,
    ),
    nodes=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_every_normal_task_runs_though_nobodys_keep_alive_ends(
    tasks: list[tuple[str, int, Priority, Isolation, float, float]], nodes: int
) -> None:
    world = Cluster([node(f"n{number}", memory_mib=2048) for number in range(nodes)])
    normal = []

    def arrive(account: str, memory_mib: int, priority: Priority, isolation: Isolation, run_s: float) -> None:
        key = pool(account, memory_mib=memory_mib, isolation=isolation)
        task = world.arrive(msgspec.structs.replace(key, priority=priority), run_s)
        if priority is Priority.NORMAL:
            normal.append(task)

    for account, memory_mib, priority, isolation, at_s, run_s in tasks:
        world.at(at_s, partial(arrive, account, memory_mib, priority, isolation, run_s))
    world.run(KEEP_IDLE_S)
    assert {tuple(task.ends) for task in normal} <= {("succeeded",)}
    world.run()
    assert {tuple(task.ends) for task in world.tasks.values()} == {("succeeded",)}
    assert_books_are_empty(world.cell)
    assert (world.reserved, world.cell.reclaim.kept) == ({}, {})
