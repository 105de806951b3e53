"""Choosing a set for one request: the table says what should be, health and room say what can be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from router.choosing.earlier_tables import IDEMPOTENCY_S, EarlierTables
from router.choosing.health import HealthBoard
from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.routing.table import Facts, IfDown, Rule, SetEntry, SetState, Table, Weights
from router.wire.problems import Problem
from router.wire.request_head import RequestHead

# Looking a member up in its class costs more than comparing it.
_OWNER: Final = Destination.OWNER
_UNSAFE: Final = RequestKind.UNSAFE
_SAFE: Final = RequestKind.SAFE
_READY: Final = SetState.READY

ASK_AT_MOST: Final = 4
"""Most sets that are asked whether they know an idempotency key."""
NARROWED_AT_MOST: Final = 4096
SPILL_SMALL: Final = 4
"""A set with less than this part (a quarter) of another's weight takes only a bounded *spill* from it, when that one is
full."""
SPILL_TIMES: Final = 2.0
"""Bound of a spill: this many times the requests that the set's own weight would bring it."""
SPILL_AT_LEAST: Final = 3
"""Number of spilled requests that a set always takes."""


class Load(Protocol):
    """The number of requests that a set has in flight from here, except reads and waits, which cost it nearly
    nothing."""

    @property
    def inflight(self) -> int: ...


class Watch(Protocol):
    """Receives requests whose set cannot take them."""

    def passed_over(self, choice: Choice, *, unwell: bool) -> None: ...


class Choice:
    """The outcome for one request: a set (`entry`) or a `problem`. `home` is where it belongs by weights alone.

    `key`, `weights` and `rule` are what the table said; None weights: the task's owner, and nobody else.
    `keyed`: the request has an idempotency key; `ask_first`: sets that may know it, one that does gets the request.
    `head`: the request's, where a rollout compares requests.
    """

    __slots__ = ("ask_first", "entry", "head", "home", "key", "keyed", "problem", "rule", "weights")

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
        self.keyed = False
        self.ask_first: tuple[SetEntry, ...] = ()
        self.head: RequestHead | None = None


def spill_bound(home_share: float, share: float, home_load: Load) -> float | None:
    """Return the number of requests in flight up to which a set takes work from `home`, which is healthy but full;
    None: no bound.

    A full stable set must not flood the canary. A dead one may, because no other set is left.
    """
    if share * SPILL_SMALL > home_share:
        return None
    return max(float(SPILL_AT_LEAST), SPILL_TIMES * home_load.inflight * share / home_share)


class Chooser:
    """Holds the table, the health board and the load of every set; asked once per request and once per retry.

    `earlier` knows where earlier tables put an idempotency key.
    """

    __slots__ = ("_default", "_generation", "_narrowed", "_rules", "board", "earlier", "loads", "table")

    def __init__(
        self,
        table: Table,
        board: HealthBoard,
        loads: Mapping[str, Load],
        earlier: EarlierTables | None = None,
    ) -> None:
        self.table = table
        self.board = board
        self.loads = loads
        self.earlier = earlier
        self._rules = bool(table.rules)
        self._default = table.default
        self._narrowed: dict[int, tuple[Weights, Weights, bool]] = {}
        """By the identity of weights: themselves, and what health leaves of them now."""
        self._generation = -1

    def choose(self, purpose: Purpose, facts: Facts, idempotency_key: bytes | None, now: float) -> Choice:
        """The set for a new request."""
        if purpose.destination is _OWNER:
            return self._owner(purpose.owner)
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
            and (
                home.max_inflight is None
                or self.loads[home.name].inflight < home.max_inflight
                or purpose.kind is _SAFE
            )
        ):
            choice = Choice(home, home, key, weights, rule)
        else:
            entry = self._planned(
                weights, rule, key, home, frozenset(), now, needs_room=purpose.kind is not _SAFE
            )
            if entry is None:
                return Choice(None, home, problem=self._nobody(weights, rule))
            if home is not None and entry is not home and home.name in self.table.sets:
                self.board.passed_over(home.name, now)
            choice = Choice(entry, home, key, weights, rule)
        if idempotency_key is not None and purpose.kind is _UNSAFE:
            choice.keyed = True
            choice.ask_first = self._may_know(choice, facts, idempotency_key, now)
        return choice

    def another(
        self, choice: Choice, tried: frozenset[str], now: float, *, needs_room: bool = True
    ) -> SetEntry | None:
        """A set for a retry that was not tried yet; a task's owner is always asked again. `needs_room`: it is
        no read."""
        if choice.weights is None:
            return choice.entry
        entry = self._planned(
            choice.weights, choice.rule, choice.key, choice.home, tried, now, needs_room=needs_room
        )
        if entry is not None and choice.home is not None and choice.home.name in self.table.sets:
            self.board.passed_over(choice.home.name, now)
        return entry

    def tell_passed_over(self, choice: Choice, watch: Watch, now: float) -> None:
        """Tell `watch` where a request does not go home because home is unwell or full.

        A set that starts slowly is neither: that says nothing about it.
        """
        home = choice.home
        if home is None or choice.entry is home:
            return
        if not self.board.of(home.name).well(now):
            watch.passed_over(choice, unwell=True)
        elif not self._room(home):
            watch.passed_over(choice, unwell=False)

    def percentages(self, now: float) -> dict[str, float]:
        """The share of new work, in percent, that each set of the default weights gets now. Health and states count;
        room does not."""
        return self._among(self._default, now, last_resort=True)[0].percentages()

    def _owner(self, name: str) -> Choice:
        entry = self.table.sets.get(name)
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

    def _may_know(
        self, choice: Choice, facts: Facts, idempotency_key: bytes, now: float
    ) -> tuple[SetEntry, ...]:
        """Sets that may have taken this idempotency key earlier, though it is chosen elsewhere now."""
        names = [] if self.earlier is None else self.earlier.homes(facts, idempotency_key)
        home = choice.home
        if home is not None and choice.weights is not None and choice.entry is home:
            if self.board.away_since(home.name, now - IDEMPOTENCY_S):
                second = choice.weights.among(choice.key, lambda entry: entry is not home)
                if second is None and choice.rule is not None:
                    second = self._default.home(choice.key)
                if second is not None:
                    names.append(second.name)
        elif home is not None:
            names.insert(0, home.name)
        found = []
        for name in dict.fromkeys(names):
            entry = self.table.sets.get(name)
            if entry is None or entry is choice.entry or entry.state is SetState.MAINT:
                continue
            if self.board.of(name).alive():
                found.append(entry)
        return tuple(found[:ASK_AT_MOST])

    def _planned(
        self,
        weights: Weights,
        rule: Rule | None,
        key: int,
        home: SetEntry | None,
        tried: frozenset[str],
        now: float,
        *,
        needs_room: bool,
    ) -> SetEntry | None:
        if rule is not None and rule.if_down is not IfDown.FAIL:
            entry = self._pick(weights, key, home, tried, now, needs_room=needs_room, last_resort=False)
            if entry is not None:
                return entry
            weights, home = self._default, self._default.home(key)
        return self._pick(weights, key, home, tried, now, needs_room=needs_room, last_resort=True)

    def _pick(
        self,
        weights: Weights,
        key: int,
        home: SetEntry | None,
        tried: frozenset[str],
        now: float,
        *,
        needs_room: bool,
        last_resort: bool,
    ) -> SetEntry | None:
        """The set for `key` among those that are well, were not tried and have room."""
        narrowed, kept = self._among(weights, now, last_resort=last_resort)
        # If all sets left keep their whole weights, home stays home.
        entry = home if kept and home is not None and home.name in narrowed.shares else narrowed.home(key)
        if entry is None or (
            entry is home and entry.name not in tried and (not needs_room or self._room(entry))
        ):
            return entry
        # If home is healthy, a set that takes over its work takes a spill, which is bounded.
        spills = home is not None and home.name in narrowed.shares
        loads = self.loads

        def takes(candidate: SetEntry) -> bool:
            if candidate.name in tried:
                return False
            if not needs_room:
                return True
            if not self._room(candidate):
                return False
            if not spills or candidate is home or candidate.max_inflight is not None:
                return True
            assert home is not None
            bound = spill_bound(weights.shares[home.name], weights.shares[candidate.name], loads[home.name])
            return bound is None or loads[candidate.name].inflight < bound

        if takes(entry):
            return entry
        return narrowed.among(key, takes)

    def _among(self, weights: Weights, now: float, *, last_resort: bool) -> tuple[Weights, bool]:
        """Narrow `weights` to the sets that can be used now; also tell whether these keep their whole weights."""
        generation = self.board.refresh(now)
        if generation != self._generation:
            self._narrowed.clear()
            self._generation = generation
        identity = id(weights) * 2 + last_resort
        known = self._narrowed.get(identity)
        if known is None:
            if len(self._narrowed) >= NARROWED_AT_MOST:
                self._narrowed.clear()
            known = self._narrowed[identity] = (weights, *self._narrow(weights, now, last_resort))
        return known[1], known[2]

    def _narrow(self, weights: Weights, now: float, last_resort: bool) -> tuple[Weights, bool]:
        # A retry may ask with the weights of an older table: the sets' states are those of the new one.
        sets = self.table.sets
        ready = {
            entry.name
            for entry in weights.entries
            if (now_entry := sets.get(entry.name)) is not None and now_entry.state is _READY
        }
        board = self.board
        usable = board.usable(ready, now, last_resort=last_resort)
        parts = {name: board.part(name, now) for name in usable}
        if not all(parts.values()):
            parts = dict.fromkeys(usable, 1.0)  # Panic, or the last resort: the weights as configured.
        narrowed = weights.narrowed(lambda entry: parts.get(entry.name, 0.0))
        return narrowed, all(part == 1.0 for part in parts.values())

    def _room(self, entry: SetEntry) -> bool:
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
