"""Choosing a set for one request: the table says what should be, health and room say what can be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .health import HealthBoard
from .request import Destination, Purpose
from .table import Facts, Plan, SetEntry, SetState, Table, Weights
from .wire.problems import Problem


class Load(Protocol):
    """How many requests a set has in flight from here."""

    inflight: int


class Choice:
    """The outcome for one request: a set (`entry`) or a `problem`. `home` is where it belongs by weights
    alone."""

    __slots__ = ("entry", "home", "owner", "plan", "problem")

    def __init__(
        self,
        entry: SetEntry | None,
        home: SetEntry | None = None,
        plan: Plan | None = None,
        owner: bool = False,
        problem: Problem | None = None,
    ) -> None:
        self.entry = entry
        self.home = home
        self.plan = plan
        self.owner = owner
        self.problem = problem


class Chooser:
    """Holds the table, the health board and the load of every set; asked once per request and once per
    retry."""

    __slots__ = ("board", "loads", "table")

    def __init__(self, table: Table, board: HealthBoard, loads: Mapping[str, Load]) -> None:
        self.table = table
        self.board = board
        self.loads = loads

    def choose(self, purpose: Purpose, facts: Facts, idempotency_key: bytes | None, now: float) -> Choice:
        """The set for a new request."""
        if purpose.destination is Destination.OWNER:
            return self._owner(purpose.task_id)
        plan = self.table.plan(facts, idempotency_key)
        home = plan.weights.home(plan.key)
        if home is not None and not self.board.troubled and self._ready(home):
            return Choice(home, home, plan)
        entry = self._planned(plan, frozenset(), now)
        if entry is not None:
            return Choice(entry, home, plan)
        return Choice(None, home, plan, problem=self._nobody(plan))

    def another(self, choice: Choice, tried: frozenset[str], now: float) -> SetEntry | None:
        """A set for a retry that was not tried yet; a task's owner is always asked again."""
        if choice.owner:
            return choice.entry
        plan = choice.plan
        return self._planned(plan, tried, now) if plan is not None else None

    def _owner(self, task_id: str) -> Choice:
        entry = self.table.owner(task_id)
        if entry is None:
            known = ", ".join(sorted(self.table.sets)) or "none"
            problem = Problem(
                404,
                "unknown-task",
                "No such task",
                f"a task's id begins with its set's name and a dash, and no set here is named so (sets: {known})",
            )
            return Choice(None, owner=True, problem=problem)
        if entry.state is SetState.MAINT:
            problem = Problem(
                503,
                "set-in-maintenance",
                "The task's set is in maintenance",
                f"set {entry.name!r} owns this task and answers nothing for now; try again later",
                retry_after_s=30,
            )
            return Choice(None, owner=True, problem=problem)
        return Choice(entry, entry, owner=True)

    def _planned(self, plan: Plan, tried: frozenset[str], now: float) -> SetEntry | None:
        if plan.fallback is None:
            return self._among(plan.weights, plan.key, tried, now)
        entry = self._among(plan.weights, plan.key, tried, now, last_resort=False)
        return entry or self._among(plan.fallback, plan.key, tried, now)

    def _among(
        self, weights: Weights, key: int, tried: frozenset[str], now: float, *, last_resort: bool = True
    ) -> SetEntry | None:
        candidates = [entry.name for entry in weights.entries if entry.state is SetState.READY]
        usable = self.board.usable(candidates, now, last_resort=last_resort) - tried
        return weights.among(key, lambda entry: entry.name in usable and self._ready(entry))

    def _ready(self, entry: SetEntry) -> bool:
        if entry.state is not SetState.READY:
            return False
        return entry.max_inflight is None or self.loads[entry.name].inflight < entry.max_inflight

    def _nobody(self, plan: Plan) -> Problem:
        ready = [entry.name for entry in plan.weights.entries if entry.state is SetState.READY]
        where = f"rule {plan.rule!r}" if plan.rule else "the default weights"
        if not ready:
            return Problem(
                503,
                "no-set",
                "No set takes new work",
                f"every set that {where} would choose is draining or in maintenance; try again later",
                retry_after_s=10,
            )
        return Problem(
            503,
            "sets-full",
            "Every set is full",
            f"the sets of {where} ({', '.join(ready)}) have as many requests in flight as allowed; try again soon",
            retry_after_s=1,
        )
