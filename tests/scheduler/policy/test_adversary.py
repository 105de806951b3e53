"""Accounts that try to keep a newcomer waiting, by any mix of sleepers, floods, shapes, cancels and spare tasks."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Priority, Resources
from tests.scheduler.policy.adversary import draw, play
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import SimSlot, SimTask, World

START_S = 0.3
PATIENCE_S = 1.0
ARRIVES_S = 8.0
CORE = Resources(100, 32)


class Attack(msgspec.Struct, frozen=True):
    """One strategy of an account: `tasks` at a time, each followed by the next as soon as it ends.

    `renews`: each task is of an image of its own, so that every one needs a new slot. `changes_its_mind`: each second
    it takes a waiting task back and sends another. `pauses`: it stops sending for a while now and then.
    """

    account: str
    cpu_percent: int
    memory_mib: int
    run_s: float
    tasks: int
    isolation: Isolation
    priority: Priority
    renews: bool
    changes_its_mind: bool
    pauses: bool


attacks = st.builds(
    Attack,
    account=st.sampled_from(["eve", "mallory", "trudy"]),
    cpu_percent=st.sampled_from([1, 6, 50, 100, 200]),
    memory_mib=st.sampled_from([32, 512, 2048]),
    run_s=st.sampled_from([0.1, 0.5, 1.5, 10.0]),
    tasks=st.integers(1, 40),
    isolation=st.sampled_from(list(Isolation)),
    priority=st.sampled_from(list(Priority)),
    renews=st.booleans(),
    changes_its_mind=st.booleans(),
    pauses=st.booleans(),
)


class Game(World):
    """A cell under attack. Tasks that sleep and tasks that compute cost the same: what they hold."""

    def __init__(self, nodes: list[NodeFacts]) -> None:
        limits = Limits(patience_s=PATIENCE_S, keep_idle_s=5.0, fresh_ahead=2)
        super().__init__(nodes, limits, start_s=START_S, kill_s=0.01)
        self._of: dict[str, Attack] = {}
        self._images = count()
        self.over = False

    def begin(self, attack: Attack) -> None:
        for _ in range(attack.tasks):
            self._send(attack)
        if attack.changes_its_mind:
            self.at(self.now + 1.0, lambda: self._change_its_mind(attack))

    def finish(self) -> None:
        """All attacks end; what waits is taken back."""
        self.over = True
        for task in list(self.tasks.values()):
            if not task.ends and not task.started_at:
                self.leave(task)
        self.run(self.now + 200.0)

    def _send(self, attack: Attack) -> None:
        if self.over:
            return
        image = f"sha256:{next(self._images)}" if attack.renews else "sha256:x"
        resources = Resources(attack.cpu_percent, attack.memory_mib)
        key = PoolKey(attack.account, image, resources, attack.isolation, (), attack.priority)
        self._of[self.arrive(key, attack.run_s).id] = attack

    def _ran(self, slot: SimSlot, run: int) -> None:
        task = slot.task
        super()._ran(slot, run)
        if task is None or not task.ends or (attack := self._of.pop(task.id, None)) is None:
            return
        if attack.pauses and int(self.now) % 3 == 0:
            self.at(self.now + 1.0, lambda: self._send(attack))
        else:
            self._send(attack)

    def _change_its_mind(self, attack: Attack) -> None:
        for task_id, other in list(self._of.items()):
            task = self.tasks[task_id]
            if other is attack and not task.started_at:
                del self._of[task_id]
                self.leave(task)
                self._send(attack)
                break
        if not self.over:
            self.at(self.now + 1.0, lambda: self._change_its_mind(attack))


@given(
    cores=st.sampled_from([2, 4, 16]),
    places_per_core=st.sampled_from([0.5, 1.0, 4.0, 20.0]),
    nodes=st.sampled_from([1, 1, 2]),
    game=st.lists(attacks, min_size=1, max_size=6),
    newcomers=st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_a_newcomer_starts_within_one_tasks_end_of_its_share(
    cores: int, places_per_core: float, nodes: int, game: list[Attack], newcomers: int
) -> None:
    """However many attackers there are: only other newcomers come before it."""
    places = max(1, round(cores * places_per_core / nodes))
    each = [NodeFacts(f"n{n}", max(200, 100 * cores // nodes), 8192, places) for n in range(nodes)]
    world = Game(each)
    for attack in game:
        world.begin(attack)
    world.run(ARRIVES_S)
    tasks: list[SimTask] = [
        world.arrive(PoolKey(f"newcomer-{n}", "sha256:x", CORE, Isolation.SHARED), 0.3)
        for n in range(newcomers)
    ]
    longest_s = max(attack.run_s for attack in game)
    # Each newcomer gets a place: that of a slot which has started and has had its task. Its slot starts. Then it is its
    # turn, or after some patience the room that tasks leave is kept for it.
    place_s = PATIENCE_S + START_S + longest_s
    room_s = PATIENCE_S + longest_s
    bound_s = newcomers * (place_s + START_S + room_s)
    while late := [task for task in tasks if not task.started_at]:
        assert world.now <= ARRIVES_S + bound_s, late
        world.run(world.now + 0.5)
    world.finish()
    assert_books_are_empty(world.cell)


def newcomer(account: str, cpu_percent: int = 100, image: str = "sha256:x") -> PoolKey:
    return PoolKey(account, image, Resources(cpu_percent, 32), Isolation.SHARED)


def test_an_account_that_changes_its_mind_holds_up_nobody_behind_it() -> None:
    """Its waiting tasks are always young, but it has waited for long: it gets the only place, and then the newcomer."""
    node = NodeFacts("n1", 100, 512, 1)
    fickle = Attack("mallory", 100, 32, 0.02, 2, Isolation.SHARED, Priority.NORMAL, False, True, False)
    world = Game([node])
    world.begin(Attack("eve", 100, 32, 0.02, 2, Isolation.SHARED, Priority.NORMAL, False, False, False))
    for _ in range(10):
        world.begin(msgspec.structs.replace(fickle, tasks=1))
    world.run(ARRIVES_S)
    task = world.arrive(newcomer("victim"), 0.1)
    world.run(ARRIVES_S + 2 * (PATIENCE_S + START_S) + 0.5)
    assert task.started_at
    world.finish()


def test_slots_that_only_wait_for_cores_give_their_place_to_an_account_without_any() -> None:
    """One account has a pool for each of its tasks: all places are slots of its own, of which one can run."""
    world = Game([NodeFacts("n1", 200, 8192, 8)])
    world.begin(Attack("eve", 200, 32, 10.0, 40, Isolation.SHARED, Priority.NORMAL, True, False, False))
    world.run(ARRIVES_S)
    world.arrive(newcomer("victim"), 0.1)
    world.run(ARRIVES_S + START_S + 0.01)
    assert [slot.ready for slot in world.slots.values() if slot.pool.account == "victim"] == [True]
    # Those who hold as few as it does give none.
    world.finish()


def test_no_place_goes_to_an_account_that_has_as_many() -> None:
    world = Game([NodeFacts("n1", 200, 8192, 2)])
    for account in ("eve", "mallory"):
        world.begin(Attack(account, 200, 32, 10.0, 3, Isolation.SHARED, Priority.NORMAL, True, False, False))
    world.run(ARRIVES_S)
    assert not [line for line in world.log if line.startswith("stop")]
    world.finish()


PLAYED = 256
"""How many games each run of the tests plays. `python -m tests.scheduler.policy.adversary` plays others."""


@pytest.mark.parametrize("first", range(0, PLAYED, 32))
def test_games_against_a_newcomer(first: int) -> None:
    lost = [number for number in range(first, first + 32) if play(draw(number)).lost]
    assert lost == []


def test_a_plan_that_changes_while_idle_slots_are_looked_at_leaves_none_for_ever() -> None:
    play(draw(92976))


@pytest.mark.parametrize("number", [45353, 87906, 99869])
def test_tasks_of_an_account_of_a_large_weight_count_whatever_their_shapes(number: int) -> None:
    """Its own pools pass its places on to each other, so no slot of it has as many tasks as its weight is worth."""
    assert not play(draw(number)).lost


@pytest.mark.parametrize("number", [8189, 55390])
def test_where_places_are_fewer_than_accounts_each_has_its_turn_before_a_newcomer(number: int) -> None:
    """Games with one place that suits the victim, and weights up to 5: it waits for others' turns, and no longer."""
    result = play(draw(number))
    assert not result.lost
