"""Choosing a set for one request: the table says what should be, health and room say what can be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .health import HealthBoard
from .request import Destination, Purpose
from .table import Facts, IfDown, Rule, SetEntry, SetState, Table, Weights
from .wire.problems import Problem

# Looking a member up in its class costs more than comparing it.
_OWNER = Destination.OWNER
_READY = SetState.READY


class Load(Protocol):
    """How many requests a set has in flight from here."""

    inflight: int


class Choice:
    """The outcome for one request: a set (`entry`) or a `problem`. `home` is where it belongs by weights alone.

    `key`, `weights` and `rule` are what the table said; None weights: the task's owner, and nobody else.
    """

    __slots__ = ("entry", "home", "key", "problem", "rule", "weights")

    def __init__(
        self,
        entry: SetEntry | None,
        home: SetEntry | None,
        key: int = 0,
        weights: Weights | None = None,
        rule: Rule | None = None,
        problem: Problem | None = None,
    ) -> None:
        self.entry = entry
        self.home = home
        self.key = key
        self.weights = weights
        self.rule = rule
        self.problem = problem


class Chooser:
    """Holds the table, the health board and the load of every set; asked once per request and once per retry."""

    __slots__ = ("_default", "_rules", "board", "loads", "table")

    def __init__(self, table: Table, board: HealthBoard, loads: Mapping[str, Load]) -> None:
        self.table = table
        self.board = board
        self.loads = loads
        self._rules = bool(table.rules)
        self._default = table.default

    def choose(self, purpose: Purpose, facts: Facts, idempotency_key: bytes | None, now: float) -> Choice:
        """The set for a new request."""
        if purpose.destination is _OWNER:
            return self._owner(purpose.task_id)
        weights = self._default
        rule = None
        if self._rules and (rule := self.table.rule_for(facts)) is not None:
            weights = rule.weights
        key = self.table.sticky_key(facts, idempotency_key)
        home = weights.home(key)
        if (
            home is not None
            and not self.board.troubled
            and home.state is _READY
            and (home.max_inflight is None or self.loads[home.name].inflight < home.max_inflight)
        ):
            return Choice(home, home, key, weights, rule)
        entry = self._planned(weights, rule, key, frozenset(), now)
        if entry is not None:
            return Choice(entry, home, key, weights, rule)
        return Choice(None, home, problem=self._nobody(weights, rule))

    def another(self, choice: Choice, tried: frozenset[str], now: float) -> SetEntry | None:
        """A set for a retry that was not tried yet; a task's owner is always asked again."""
        if choice.weights is None:
            return choice.entry
        return self._planned(choice.weights, choice.rule, choice.key, tried, now)

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
            return Choice(None, None, problem=problem)
        if entry.state is SetState.MAINT:
            problem = Problem(
                503,
                "set-in-maintenance",
                "The task's set is in maintenance",
                f"set {entry.name!r} owns this task and answers nothing for now; try again later",
                retry_after_s=30,
            )
            return Choice(None, None, problem=problem)
        return Choice(entry, entry)

    def _planned(
        self, weights: Weights, rule: Rule | None, key: int, tried: frozenset[str], now: float
    ) -> SetEntry | None:
        if rule is None or rule.if_down is IfDown.FAIL:
            return self._among(weights, key, tried, now)
        entry = self._among(weights, key, tried, now, last_resort=False)
        return entry or self._among(self._default, key, tried, now)

    def _among(
        self, weights: Weights, key: int, tried: frozenset[str], now: float, *, last_resort: bool = True
    ) -> SetEntry | None:
        sets = self.table.sets  # A retry may ask with the weights of an older table.
        candidates = [entry.name for entry in weights.entries if entry.name in sets and entry.state is _READY]
        usable = self.board.usable(candidates, now, last_resort=last_resort) - tried
        return weights.among(key, lambda entry: entry.name in usable and self._ready(entry))

    def _ready(self, entry: SetEntry) -> bool:
        if entry.state is not _READY:
            return False
        return entry.max_inflight is None or self.loads[entry.name].inflight < entry.max_inflight

    def _nobody(self, weights: Weights, rule: Rule | None) -> Problem:
        ready = [entry.name for entry in weights.entries if entry.state is SetState.READY]
        where = f"rule {rule.name!r}" if rule is not None else "the default weights"
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
