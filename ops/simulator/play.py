"""Plays a scenario: builds its sets, lets its tasks arrive and its nodes fail, and returns the books."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Final

from ops.simulator.agenda import Agenda
from ops.simulator.durations import drawer
from ops.simulator.front import Answered, Front
from ops.simulator.scenario import TRACE, Failure, Nodes, RouterPlan, Scenario
from ops.simulator.sources import Source, account_sources, digest, trace_sources
from ops.simulator.tally import Tally
from ops.simulator.virtual_set import End, VirtualSet, VirtualTask, Watch
from scheduler.policy.cell import Cell
from scheduler.policy.limits import Limits, number_slots
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey

OVERHEAD_S: Final = 0.0005
"""Seconds for which a slot is busy with a task beside its program: it is handed over, and the slot is cleaned."""


class Play:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        # The router draws a task's key itself.
        random.seed(scenario.seed)
        self.agenda = Agenda()
        self.scenario = scenario
        self._numbers = count(1)
        plan = scenario.router or (RouterPlan() if scenario.sets > 1 else None)
        dies = any(failure.nodes is None for failure in scenario.failures)
        self.front = None if plan is None else Front(self.agenda, scenario.set_names, plan, watches=dies)
        self.sets: list[VirtualSet] = []
        self.sources = [*account_sources(scenario), *trace_sources(scenario)]
        groups = [account.name for account in scenario.accounts]
        if scenario.trace is not None:
            groups.append(TRACE)
        self.tally = Tally(self.agenda, self.sets, groups, scenario.length_s, scenario.intervals)
        start_s = self._starts()
        for name in scenario.set_names:
            self._open(name, start_s)
        for source in self.sources:
            self._next(source)
        for failure in scenario.failures:
            if failure.at_s < scenario.length_s:
                self.agenda.at(failure.at_s, self._fail, failure)

    @property
    def tasks(self) -> int:
        """How many tasks have arrived."""
        return sum(each.arrived for group in self.tally.counts for each in group)

    def run(self, told: Callable[[float], None] | None = None) -> Tally:
        """Play to the end; `told` hears the time after each interval."""
        for interval in range(1, self.scenario.intervals + 1):
            self.agenda.run(interval * self.tally.interval_s)
            if told is not None:
                told(self.agenda.now)
        self.tally.close()
        return self.tally

    # -- how it is built

    def _starts(self) -> Callable[[PoolKey], float]:
        scenario, chance = self.scenario, Random(f"slots {self.scenario.seed}")
        by_image = {digest(image.name): drawer(image.start_s, chance) for image in scenario.images}
        if scenario.trace is None:
            return lambda key: by_image[key.image_digest]()
        usual = drawer(scenario.trace.start_s, chance)
        return lambda key: by_image.get(key.image_digest, usual)()

    def _open(self, name: str, start_s: Callable[[PoolKey], float]) -> None:
        books: Watch = self.tally
        if self.front is not None:
            books = Answered(self.front, name, books)
        cell = self._cell(f"{name}-")
        made = VirtualSet(name, self.agenda, cell, books, start_s, overhead_s=OVERHEAD_S)
        self.sets.append(made)
        if self.front is not None:
            self.front.serve(made)

    def _cell(self, prefix: str, *, alive: bool = True) -> Cell:
        scenario = self.scenario
        weights = {each: account.weight for account in scenario.accounts for each in account.names}
        limits = _limits(scenario, {each: weight for each, weight in weights.items() if weight != 1})
        nodes = [facts for kind in scenario.nodes for facts in facts_of(kind)] if alive else []
        return Cell(limits, number_slots(prefix), nodes)

    # -- what happens

    def _next(self, source: Source) -> None:
        at_s = next(source.times, None)
        if at_s is not None:
            self.agenda.at(at_s, self._arrive, source)

    def _arrive(self, source: Source) -> None:
        self._next(source)
        key, request, run_s = source.draw()
        task = VirtualTask(
            f"t{next(self._numbers)}",
            key,
            run_s,
            self.agenda.now,
            source=source.index,
            steady=source.steady,
            queue_timeout_s=source.queue_timeout_s,
            limit_s=source.limit_s,
        )
        self.tally.arrived(source.index)
        if self.front is None:
            taken = self.sets[0].arrive(task) is None
        else:
            taken = self.front.send(task, request)
        if not taken:
            self.tally.refused(source.index)

    def _fail(self, failure: Failure) -> None:
        if failure.nodes is None:
            self._set_dies(next(each for each in self.sets if each.name == failure.set_name), failure.for_s)
            return
        kind = next(each for each in self.scenario.nodes if each.name == failure.nodes)
        facts = facts_of(kind)
        dead = facts[: max(1, round(failure.share * len(facts)))]
        for each in self.sets:
            if failure.set_name in (None, each.name):
                for node in dead:
                    each.node_dies(node.id, failure.notice_s)
                    self.agenda.at(self.agenda.now + failure.for_s, partial(each.node_returns), node)

    def _set_dies(self, dead: VirtualSet, for_s: float) -> None:
        assert self.front is not None
        if dead.is_down:
            return
        for task in self.front.broke_off(dead.name, dead.die(self._cell("", alive=False))):
            self.tally.ended(task, End.BROKEN_OFF)
        self.agenda.at(self.agenda.now + for_s, self._set_rises, dead)

    def _set_rises(self, dead: VirtualSet) -> None:
        dead.rise(self._cell(f"{dead.name}-{next(self._numbers)}-"))


def facts_of(nodes: Nodes) -> list[NodeFacts]:
    """The nodes of this kind that each set has."""
    return [
        NodeFacts(
            f"{nodes.name}-{number + 1}",
            round(nodes.cores * 100),
            nodes.memory_mib,
            nodes.max_slots,
            frozenset(nodes.features),
        )
        for number in range(nodes.count)
    ]


def _limits(scenario: Scenario, weights: dict[str, int]) -> Limits:
    given = {name: getattr(scenario.limits, name) for name in Limits.__struct_fields__}
    return Limits(**{**given, "account_weights": weights})
