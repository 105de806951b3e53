"""The table's weights with the rollout's on top. Pure: the table is never changed, another one is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from router.routing.table import WEIGHT_TOTAL, SetState, Table, Weights

_NOBODY: Final[Mapping[str, int]] = {}


def overlay(table: Table, canary: str, weight: int, known: Mapping[str, int] = _NOBODY) -> Table:
    """Return `table` with `canary` at `weight` hundredths of a percent in the default weights. The other sets share the
    rest in their old proportions; if the table gives them nothing, in those that they last had (`known`). Rules keep
    their own weights.

    It is the same table if nothing would change, or if no other set exists to give to or take from. Draws use exact
    ratios, so between two steps keys move only to or from the canary; `shares` are rounded, and add up to exactly 100
    %.
    """
    base = table.default.shares
    if canary not in table.sets or base.get(canary, 0) == weight:
        return table
    others = _others(table, canary, known)
    total = sum(others.values())
    if total == 0:
        return table
    exact = dict.fromkeys({**base, **others, canary: 0}, 0)
    exact.update({name: share * (WEIGHT_TOTAL - weight) for name, share in others.items()})
    exact[canary] = weight * total
    return replace(table, default=Weights(table.sets, rounded(exact), exact))


def takers(table: Table, canary: str, known: Mapping[str, int] = _NOBODY) -> dict[str, bool]:
    """The sets that would share everything if `canary` had nothing, and whether each of them takes new work."""
    return {name: table.sets[name].state is SetState.READY for name in _others(table, canary, known)}


def _others(table: Table, canary: str, known: Mapping[str, int]) -> dict[str, int]:
    """The shares of the other sets, each above 0."""
    for shares in (table.default.shares, known):
        others = {
            name: share
            for name, share in shares.items()
            if name != canary and share > 0 and name in table.sets
        }
        if others:
            return others
    return {}


def rounded(exact: Mapping[str, int]) -> dict[str, int]:
    """Round shares to hundredths of a percent, exactly `WEIGHT_TOTAL` together, by largest remainder. A set that has
    something keeps at least 0.01, so that it never looks as if it got no traffic."""
    total = sum(exact.values())
    shares = {name: value * WEIGHT_TOTAL // total for name, value in exact.items()}
    left = WEIGHT_TOTAL - sum(shares.values())
    by_remainder = sorted(exact, key=lambda name: (-(exact[name] * WEIGHT_TOTAL % total), name))
    for name in by_remainder[:left]:
        shares[name] += 1
    for name in exact:
        if exact[name] > 0 and shares[name] == 0:
            shares[max(shares, key=lambda other: (shares[other], other))] -= 1
            shares[name] = 1
    return shares
