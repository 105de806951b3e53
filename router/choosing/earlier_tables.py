"""Earlier tables, and where they put an idempotency key: weights change, yet the same key within 24 h is the same task.
Pure.

Only tables are remembered, no keys. So every worker and every router that saw the same changes gives the same answer,
and memory does not grow with traffic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from router.routing.rules import Facts
from router.routing.table import Rule, Table

IDEMPOTENCY_S: Final = 24 * 3600.0
TABLES_AT_MOST: Final = 16
WORK_AT_MOST: Final = 20_000
"""Sets and rules of all remembered tables together: looking a key up in them takes time."""


class EarlierTables:
    """The tables that were in force during the last 24 hours, newest first, the one in force now left out.

    Times are of the wall clock, in seconds: a restart continues with what the history holds.
    """

    def __init__(self) -> None:
        self._current: Table | None = None
        self._earlier: list[tuple[float, Table]] = []

    def __len__(self) -> int:
        return len(self._earlier)

    def adopt(self, table: Table, now: float) -> None:
        """Another table comes into force; the one before it is remembered from now on."""
        before, self._current = self._current, table
        if before is not None:
            self._remember(before, now)
        self._forget(now)

    def restore(self, ended: Iterable[tuple[float, Table]], now: float) -> None:
        """Take tables that were in force before this process began, each with the time of its end, oldest first."""
        for moment, table in ended:
            self._remember(table, moment)
        self._forget(now)

    def homes(self, facts: Facts, idempotency_key: bytes) -> list[str]:
        """Names of the sets where the earlier tables put this key, the latest first, without repetition."""
        names: dict[str, None] = {}
        for _, table in self._earlier:
            rule = table.rule_for(facts)
            weights = table.default if rule is None else rule.weights
            home = weights.home(table.sticky_key(facts, idempotency_key))
            if home is not None:
                names[home.name] = None
        return list(names)

    def _remember(self, table: Table, ended: float) -> None:
        self._earlier = [(moment, other) for moment, other in self._earlier if not _same(other, table)]
        self._earlier.insert(0, (ended, table))

    def _forget(self, now: float) -> None:
        current = self._current
        kept: list[tuple[float, Table]] = []
        work = 0
        for ended, table in self._earlier:
            work += len(table.sets) + len(table.rules)
            if len(kept) >= TABLES_AT_MOST or (kept and work > WORK_AT_MOST):
                break
            if now - ended < IDEMPOTENCY_S and (current is None or not _same(table, current)):
                kept.append((ended, table))
        self._earlier = kept


def _same(one: Table, other: Table) -> bool:
    """Return True if both tables put every key on the same set. The first comparison is mostly enough."""
    if one.default.shares != other.default.shares or len(one.rules) != len(other.rules):
        return False
    if one.rules is other.rules:
        return True
    return all(_decides(rule) == _decides(also) for rule, also in zip(one.rules, other.rules, strict=True))


def _decides(rule: Rule) -> object:
    return rule.weights.shares, rule.headers, rule.account, rule.image, rule.path, rule.method
