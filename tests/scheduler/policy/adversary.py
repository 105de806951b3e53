"""Plays accounts against a victim on the pure cell: each game is drawn from its number, its seed.

    python -m tests.scheduler.policy.adversary FIRST GAMES

plays the games FIRST to FIRST + GAMES - 1 and prints each that the victim lost. To resume, name the game after the last
one that was reported. `tests.scheduler.policy.test_adversary` plays some of them in every run of the tests.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from itertools import count
from random import Random
from typing import Final

import msgspec

from scheduler.policy.decisions import Assign
from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Priority, Resources
from sets.api import upload
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.world import SimSlot, SimTask, World

START_S: Final = 0.3
"""How long a slot takes to start, in seconds."""
PATIENCE_S: Final = 1.0
"""The limit of that name."""
MOMENTS_S: Final = 0.1
"""How long a spare task may take to give way, in seconds; and for clocks that are read twice."""
MEMORY_MIB: Final = 512
"""The memory for each core, in MiB."""
UPLOAD_S: Final = upload.PATIENCE_S
"""How long an input that never comes may hold a slot while others wait, in seconds."""
LOOK_AGAIN_S: Final = upload.LOOK_AGAIN_S
"""How often such an upload is looked at after that, in seconds."""
ENDLESS_S: Final = 100_000.0
"""Longer than any game, in seconds."""
REPORT_EVERY: Final = 1_000
"""How many games pass between two lines of the command."""


class Strategy(msgspec.Struct, frozen=True):
    """One account's way to hold up others: `tasks` at a time, each followed by the next once it ends.

    `runs_s`: durations that take turns. `cpu_share`: how much of what they hold the tasks compute with. `uploads`:
    their input never comes, so each ends after `UPLOAD_S` once others wait (`sets.api.upload`). `renews`: each task is
    of an image of its own. `shapes`: how many amounts of memory take turns. `changes_its_mind_s`: how often it takes a
    waiting task back and sends another; 0: never. `rests_s`: how long it waits between tasks. `begins_s`: when it
    begins; 0 is when the victim arrives.
    """

    account: str
    cpu_percent: int
    memory_mib: int
    runs_s: tuple[float, ...]
    tasks: int
    cpu_share: float
    isolation: Isolation
    priority: Priority
    uploads: bool
    renews: bool
    shapes: int
    changes_its_mind_s: float
    rests_s: float
    begins_s: float

    @property
    def holds_s(self) -> float:
        """For how long one of its tasks may keep what others need, in seconds."""
        if self.priority is Priority.SPARE:
            return MOMENTS_S
        return UPLOAD_S + LOOK_AGAIN_S if self.uploads else max(self.runs_s)


class Game(msgspec.Struct, frozen=True):
    """A set of `nodes`, strategies, weights by account, and the victim's task, which arrives after `arrives_s`."""

    nodes: tuple[NodeFacts, ...]
    strategies: tuple[Strategy, ...]
    weights: dict[str, int]
    victim: PoolKey
    fresh_ahead: int
    arrives_s: float

    def bound_s(self, newcomers: int) -> float:
        """The longest time that the victim's first task may wait, in seconds, beside so many other newcomers.

        Its slot gets a place when a task ends, or for its patience; an account whose weight is larger has as many tasks
        first, and so does each other account where places are too few for all: then they take turns. When its slot has
        started, it is the victim's turn: it has its room when tasks end, or for its patience. Other newcomers may come
        before it.
        """
        longest_s = max(strategy.holds_s for strategy in self.strategies)
        mine = self.weights.get(VICTIM, 1)
        worth = {each.account: max(1.0, self.weights.get(each.account, 1) / mine) for each in self.strategies}
        suited = [node for node in self.nodes if node.cpu_percent >= self.victim.resources.cpu_percent]
        few = sum(node.max_slots for node in suited) <= len(worth)
        turns = sum(worth.values()) if few else max(worth.values())
        place_s = PATIENCE_S + turns * (longest_s + START_S) + START_S
        room_s = PATIENCE_S + longest_s
        return place_s + (1 + newcomers) * room_s + 2 * MOMENTS_S


VICTIM: Final = "victim"
"""The account that the others play against."""


def draw(number: int) -> Game:
    """The game of this number."""
    chance = Random(number)
    cores = chance.choice([1, 1, 2, 2, 3, 4, 6, 8, 16, 32, 64, 128])
    nodes = chance.choice([1, 1, 1, 2, 3]) if cores > 2 else 1
    per_core = chance.choice([0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 20.0])
    here = [cores // nodes + (n < cores % nodes) for n in range(nodes)]
    facts = tuple(
        NodeFacts(f"n{n}", 100 * mine, MEMORY_MIB * mine, max(1, round(mine * per_core)))
        for n, mine in enumerate(here)
    )
    places = sum(node.max_slots for node in facts)
    accounts = chance.randint(1, 8)
    strategies = tuple(_strategy(chance, accounts, max(here), places) for _ in range(chance.randint(1, 8)))
    weights = {}
    if chance.random() < 0.3:
        weights = {
            name: chance.choice([1, 2, 5])
            for name in (VICTIM, *sorted({each.account for each in strategies}))
        }
    cpu_percent = chance.choice([1, 10, 100, 100, 100, 100 * max(here)])
    victim = PoolKey(
        VICTIM,
        "sha256:x",
        Resources(min(cpu_percent, 100 * max(here)), chance.choice([16, 128, MEMORY_MIB])),
        chance.choice(list(Isolation)),
    )
    return Game(facts, strategies, weights, victim, chance.choice([0, 2, 8]), chance.uniform(2.0, 10.0))


def _strategy(chance: Random, accounts: int, cores: int, places: int) -> Strategy:
    # The more cores there are, the longer the tasks: otherwise a game of 128 cores would have too many.
    shortest_s = max(0.02, cores / 100)
    runs_s = tuple(
        shortest_s * chance.choice([1.0, 2.0, 10.0, 30.0, 100.0]) for _ in range(chance.choice([1, 1, 2, 3]))
    )
    tasks = chance.choice([1, 3, 10, places, 2 * places, 300])
    return Strategy(
        account=f"attacker-{chance.randrange(accounts)}",
        cpu_percent=min(chance.choice([1, 6, 50, 100, 100, 200, 100 * cores]), 100 * cores),
        memory_mib=chance.choice([1, 16, 128, MEMORY_MIB, MEMORY_MIB * cores]),
        runs_s=runs_s,
        tasks=min(tasks, 300),
        cpu_share=chance.choice([0.0, 0.0005, 1.0]),
        isolation=chance.choice(list(Isolation)),
        priority=chance.choice([Priority.NORMAL, Priority.NORMAL, Priority.SPARE]),
        uploads=chance.random() < 0.15,
        renews=chance.random() < 0.3,
        shapes=chance.choice([1, 1, 5]),
        changes_its_mind_s=chance.choice([0.0, 0.0, 0.1, 1.0]),
        rests_s=chance.choice([0.0, 0.0, 0.0, 0.01, 1.0]),
        begins_s=chance.choice([-10.0, -10.0, -1.0, 0.0, 0.5]),
    )


class Field(World):
    """The world in which a game is played."""

    def __init__(self, game: Game) -> None:
        limits = Limits(
            patience_s=PATIENCE_S,
            keep_idle_s=5.0,
            fresh_ahead=game.fresh_ahead,
            account_weights=game.weights,
            # A strategy may ask for ever new images.
            max_pools=1 << 20,
            max_pools_account=1 << 20,
        )
        super().__init__(list(game.nodes), limits, start_s=START_S)
        self.over = False
        self._strategy_of: dict[str, Strategy] = {}
        self._images = count()
        self._sent = count()

    def begin(self, strategy: Strategy) -> None:
        for _ in range(strategy.tasks):
            self._send(strategy)
        if strategy.changes_its_mind_s:
            self.at(self.now + strategy.changes_its_mind_s, lambda: self._change_its_mind(strategy))

    def finish(self) -> None:
        """All strategies end, and what waits is taken back."""
        self.over = True
        for task in list(self.tasks.values()):
            if not task.ends and not task.started_at:
                self.leave(task)
        self.run(self.now + 1_000.0)

    def _send(self, strategy: Strategy) -> None:
        if self.over:
            return
        number = next(self._sent)
        image = f"sha256:{next(self._images)}" if strategy.renews else "sha256:x"
        memory_mib = max(1, strategy.memory_mib - number % strategy.shapes)
        key = PoolKey(
            strategy.account,
            image,
            Resources(strategy.cpu_percent, memory_mib),
            strategy.isolation,
            (),
            strategy.priority,
        )
        run_s = ENDLESS_S if strategy.uploads else strategy.runs_s[number % len(strategy.runs_s)]
        task_id = f"t{number}"
        self._strategy_of[task_id] = strategy
        self.arrive(key, run_s, task_id=task_id)

    def _assign(self, decision: Assign) -> None:
        super()._assign(decision)
        slot = self.slots[decision.slot_id]
        strategy = self._strategy_of.get(decision.task_id)
        if strategy is not None and strategy.uploads:
            run = slot.run
            self.at(self.now + UPLOAD_S, lambda: self._look_at_upload(slot, run))

    def _look_at_upload(self, slot: SimSlot, run: int) -> None:
        if self.slots.get(slot.id) is not slot or slot.run != run or slot.task is None:
            return
        if self.over or self.cell.others_wait(slot.pool.account):
            self._ran(slot, run)
        else:
            self.at(self.now + LOOK_AGAIN_S, lambda: self._look_at_upload(slot, run))

    def _ran(self, slot: SimSlot, run: int) -> None:
        task = slot.task
        super()._ran(slot, run)
        if task is not None and task.ends and (strategy := self._strategy_of.pop(task.id, None)) is not None:
            if strategy.rests_s:
                self.at(self.now + strategy.rests_s, lambda: self._send(strategy))
            else:
                self._send(strategy)

    def _cpu_us(self, slot: SimSlot, task: SimTask) -> int:
        strategy = self._strategy_of.get(task.id)
        share = 1.0 if strategy is None else 0.0 if strategy.uploads else strategy.cpu_share
        return round(super()._cpu_us(slot, task) * share)

    def _change_its_mind(self, strategy: Strategy) -> None:
        if self.over:
            return
        for task_id, other in self._strategy_of.items():
            task = self.tasks[task_id]
            if other is strategy and not task.started_at:
                del self._strategy_of[task_id]
                self.leave(task)
                self._send(strategy)
                break
        self.at(self.now + strategy.changes_its_mind_s, lambda: self._change_its_mind(strategy))


class Result(msgspec.Struct, frozen=True):
    """How long the victim's first task waited, in seconds; None where it did not start within `bound_s`."""

    waited_s: float | None
    bound_s: float

    @property
    def lost(self) -> bool:
        return self.waited_s is None


def play(game: Game) -> Result:
    """Play the game."""
    field = Field(game)
    for strategy in game.strategies:
        field.at(max(0.0, game.arrives_s + strategy.begins_s), partial(field.begin, strategy))
    field.run(game.arrives_s)
    served = {task.key.account for task in field.tasks.values() if task.started_at}
    newcomers = {strategy.account for strategy in game.strategies} - served
    bound_s = game.bound_s(len(newcomers))
    task = field.arrive(game.victim, 0.3, task_id=VICTIM)
    while not task.started_at and field.now < game.arrives_s + bound_s:
        field.run(min(field.now + 0.5, game.arrives_s + bound_s))
    if not task.started_at:
        return Result(None, bound_s)
    field.finish()
    assert_books_are_empty(field.cell)
    return Result(task.started_at[0] - task.arrived_at, bound_s)


def main(first: int, games: int) -> int:
    """Play the games; returns how many the victim lost."""
    lost, began = 0, time.monotonic()
    for number in range(first, first + games):
        try:
            result = play(draw(number))
        except Exception as error:
            lost += 1
            print(f"game {number} failed: {type(error).__name__}: {error}", flush=True)
        else:
            if result.lost:
                lost += 1
                print(f"game {number} is lost: its victim waited for {result.bound_s:.1f} s", flush=True)
        if (number + 1 - first) % REPORT_EVERY == 0:
            taken_s = time.monotonic() - began
            print(f"games {first} to {number}: {lost} lost, {taken_s:.0f} s", flush=True)
    return lost


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])) > 0)
