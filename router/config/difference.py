"""The effect of a change of the table: which share of keys moves, from which set to which. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec.structs import fields, replace

from router.routing.rules import IfDown, Rule
from router.routing.table import SetState, Table, Weights, key_hash

MAX_KEYS: Final = 50_000
MIN_KEYS: Final = 2_000
DRAWS: Final = 2_000_000
NOBODY: Final = "(none)"


class Shift(msgspec.Struct, frozen=True):
    """One part of the traffic (`rule` None: the requests that no rule matches), in percent of it, with every set
    healthy.

    `before` and `after` are exact shares by set. `moves` maps (from, to) to the share of keys that moves so, counted on
    a fixed sample of keys, give or take `error`; `least` is the smallest share that must move for these weights,
    exactly.
    """

    rule: str | None
    before: dict[str, float]
    after: dict[str, float]
    moves: dict[tuple[str, str], float]
    least: float
    error: float = 0.0

    @property
    def moved(self) -> float:
        """The share of keys that moves; exact if only those move that must."""
        return self._at_least(sum(self.moves.values()), self.least)

    def gained(self, name: str) -> float:
        counted = sum(share for (_, to), share in self.moves.items() if to == name)
        return self._at_least(counted, self.after.get(name, 0.0) - self.before.get(name, 0.0))

    def lost(self, name: str) -> float:
        counted = sum(share for (origin, _), share in self.moves.items() if origin == name)
        return self._at_least(counted, self.before.get(name, 0.0) - self.after.get(name, 0.0))

    def _at_least(self, counted: float, exact: float) -> float:
        exact = max(0.0, exact)
        return counted if counted > exact + self.error else exact


class Difference(msgspec.Struct, frozen=True):
    """`shifts`: the default's, then those of the rules that either table has. `words`: other changes, one a line."""

    shifts: tuple[Shift, ...]
    words: tuple[str, ...]

    @property
    def any(self) -> bool:
        return bool(self.words) or any(shift.moved or shift.before != shift.after for shift in self.shifts)


def difference(old: Table, new: Table) -> Difference:
    """Compare two tables. A rule that one of them lacks is compared with the default,
    where its requests go without it."""
    before, after = _ready(old, old.default), _ready(new, new.default)
    whole = _shift(None, before, after)
    shifts = [whole]
    old_rules = {rule.name: rule for rule in old.rules}
    new_rules = {rule.name: rule for rule in new.rules}
    for name in dict.fromkeys((*old_rules, *new_rules)):
        pair = (_by_rule(old, old_rules.get(name), before), _by_rule(new, new_rules.get(name), after))
        # There may be many rules that fall back to the default. They move as it does, so they share its result.
        same = pair[0] is before and pair[1] is after
        shifts.append(replace(whole, rule=name) if same else _shift(name, *pair))
    return Difference(tuple(shifts), tuple(_words(old, new)))


def _ready(table: Table, weights: Weights) -> Weights:
    return weights.narrowed(lambda entry: float(table.sets[entry.name].state is SetState.READY))


def _by_rule(table: Table, rule: Rule | None, default: Weights) -> Weights:
    if rule is None:
        return default
    ready = _ready(table, rule.weights)
    return default if not ready.entries and rule.if_down is IfDown.DEFAULT else ready


def _shift(rule: str | None, old: Weights, new: Weights) -> Shift:
    before = old.percentages() or {NOBODY: 100.0}
    after = new.percentages() or {NOBODY: 100.0}
    names = before.keys() | after.keys()
    least = sum(max(0.0, after.get(name, 0.0) - before.get(name, 0.0)) for name in names)
    moves: dict[tuple[str, str], float] = {}
    count = 0
    if before != after:
        count = max(MIN_KEYS, min(MAX_KEYS, DRAWS // (len(old.entries) + len(new.entries) + 1)))
        for number in range(count):
            key = key_hash(b"sample\0%d" % number)
            was, becomes = old.home(key), new.home(key)
            if was is None or becomes is None or was.name != becomes.name:
                pair = (was.name if was else NOBODY, becomes.name if becomes else NOBODY)
                moves[pair] = moves.get(pair, 0.0) + 100.0 / count
    # Three standard deviations of a share near one half, the largest that a share can have.
    return Shift(rule, before, after, moves, least, 150.0 / count**0.5 if count else 0.0)


def _words(old: Table, new: Table) -> Iterator[str]:
    for name in old.sets.keys() - new.sets.keys():
        yield f"set {name}: taken out; its tasks can no longer be asked for"
    for name, entry in new.sets.items():
        before = old.sets.get(name)
        if before is None:
            yield f"set {name}: new, at {entry.url or f'service {entry.service}'}"
            continue
        for what in ("url", "service", "state", "max_inflight"):
            was, becomes = getattr(before, what), getattr(entry, what)
            if was != becomes:
                yield f"set {name}: {what} {was or 'none'} → {becomes or 'none'}"
    old_rules = {rule.name: rule for rule in old.rules}
    new_rules = {rule.name: rule for rule in new.rules}
    for name in old_rules.keys() - new_rules.keys():
        yield f"rule {name}: taken out"
    for name, rule in new_rules.items():
        known = old_rules.get(name)
        if known is None:
            yield f"rule {name}: new"
        elif (known.tests(), known.if_down) != (rule.tests(), rule.if_down):
            yield f"rule {name}: other conditions"
    kept = [name for name in new_rules if name in old_rules]
    if kept != [name for name in old_rules if name in new_rules]:
        yield "rules: another order; the first that matches wins"
    if old.key_parts != new.key_parts:
        yield "key: another source, so that every key may move"
    for what in ("health", "retry", "access_log"):
        yield from _policy_words(what, getattr(old, what), getattr(new, what))
    given, wanted = old.timeouts.given_s, new.timeouts.given_s
    for name in dict.fromkeys((*given, *wanted)):
        if given.get(name) != wanted.get(name):
            yield f"timeouts: {name} {_seconds(given.get(name))} → {_seconds(wanted.get(name))}"
    if old.rollout != new.rollout:
        yield "rollout: another plan"


def _policy_words(what: str, old: object, new: object) -> Iterator[str]:
    for field in fields(old):  # type: ignore[arg-type]
        was, becomes = getattr(old, field.name), getattr(new, field.name)
        if was != becomes:
            yield f"{what}: {field.name} {was} → {becomes}"


def _seconds(value: float | None) -> str:
    return "as started" if value is None else f"{value:g} s"
