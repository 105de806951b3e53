"""Prints routing tables: a summary of one, and the difference between two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ops.cli import report
from ops.cli.router_columns import columns, percent

if TYPE_CHECKING:
    from router.config.difference import Difference
    from router.routing.table import Table


def summary(table: Table) -> str:
    """Return a table's weights, and the numbers of its sets and rules."""
    shares = ", ".join(f"{name} {percent(share / 100)}" for name, share in table.default.shares.items())
    rules = len(table.rules)
    return f"weights {shares}; {report.counted(len(table.sets), 'set')}, {report.counted(rules, 'rule')}"


def difference(found: Difference) -> None:
    """Print the share of keys that moves, part by part, then all other differences."""
    if not found.any:
        print("this changes nothing that a router does")
        return
    for shift in found.shifts:
        part = "requests that no rule matches" if shift.rule is None else f"rule {shift.rule}"
        if shift.before == shift.after and not shift.moved:
            if shift.rule is None:
                print(f"{part}: no key moves")
            continue
        more = "" if shift.moved == shift.least else f" ({percent(shift.least)} would do)"
        print(f"{part}: {percent(shift.moved)} of keys move{more}")
        rows = [
            (
                name,
                percent(shift.before.get(name, 0.0)),
                percent(shift.after.get(name, 0.0)),
                percent(shift.gained(name)) if shift.gained(name) else "",
                percent(shift.lost(name)) if shift.lost(name) else "",
            )
            for name in sorted(shift.before.keys() | shift.after.keys())
        ]
        columns(("SET", "BEFORE", "AFTER", "COME", "GO"), rows, right=("BEFORE", "AFTER", "COME", "GO"))
    for line in found.words:
        print(report.plain(line))


def difference_document(found: Difference) -> dict[str, Any]:
    """Return a difference for JSON; shares in percent."""
    return {
        "shifts": [
            {
                "rule": shift.rule,
                "before": shift.before,
                "after": shift.after,
                "moved": round(shift.moved, 4),
                "least": round(shift.least, 4),
                "moves": [
                    {"from": origin, "to": to, "share": round(share, 4)}
                    for (origin, to), share in sorted(shift.moves.items())
                ],
            }
            for shift in found.shifts
        ],
        "other": list(found.words),
    }
