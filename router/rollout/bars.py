"""Sets that an abort took back: a *bar* keeps new requests from them, by weight or rule, until somebody lifts it. Pure.

A bar is lifted by a start or `rollout end` for its set, by another weight for it in the file, and by another build
there. An edit of other sets' weights lifts none: the file may still give the set what it had before. Nor does another
address: the same build may be there.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from router.routing.table import SetEntry, SetState, Table


class Bar(msgspec.Struct, frozen=True):
    """Why and since when (seconds since the epoch) a set gets nothing. `share`: its weight in the file; `build`: as it
    was at the abort, empty where nobody told."""

    at: float
    why: str
    share: int = 0
    build: str = ""


def lifted(name: str, bar: Bar, shares: Mapping[str, int], builds: Mapping[str, str]) -> str:
    """Why the bar of set `name` no longer holds, by the file's weights and what builds sets tell; empty: it does."""
    share = shares.get(name, 0)
    if share > 0 and share != bar.share:
        return f"the file gives it {share / 100:g} % now"
    build = builds.get(name, "")
    if bar.build and build and build != bar.build:
        return f"its build is {build} now, and was {bar.build}"
    return ""


def without(table: Table, bars: Mapping[str, Bar]) -> Table:
    """`table` with the barred sets in drain: they answer for tasks that they own, and take no new request. The same
    table where none is barred."""
    barred: dict[str, SetEntry] = {
        name: replace(entry, state=SetState.DRAIN)
        for name, entry in table.sets.items()
        if name in bars and entry.state is SetState.READY
    }
    if not barred:
        return table
    sets = {**table.sets, **barred}
    rules = tuple(replace(rule, weights=rule.weights.over(sets)) for rule in table.rules)
    return replace(table, sets=sets, default=table.default.over(sets), rules=rules)
