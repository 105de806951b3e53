"""Measures choosing a set, without the rest of a request."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from ops.bench import choice
from ops.bench.figures import Figure
from ops.bench_router.bench import Bench, at_most

LIMITS_US: Final = {(10, 50): 15.0, (1000, 1000): 1000.0}
"""Targets in µs, by sets and rules."""


def choosing(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Measure CPU µs per choice with all sets up and with one ejected; the larger counts."""
    found: dict[tuple[int, int], list[choice.Figure]] = {size: [] for size in LIMITS_US}
    for _ in range(rounds):
        for each in choice.figures():
            if (each.sets, each.rules) in found:
                found[each.sets, each.rules].append(each)
    yield from figures(found, bench)


def figures(found: dict[tuple[int, int], list[choice.Figure]], bench: Bench) -> Iterator[Figure]:
    """Turn the rounds' measurements, by sets and rules, into rows."""
    for (sets, rules), each in found.items():
        well_us = median(one.well_us for one in each)
        ejected_us = median(one.one_ejected_us for one in each)
        bench.say(f"{sets} sets, {rules} rules: {well_us:.1f} µs, {ejected_us:.1f} µs with one ejected")
        limit_us = LIMITS_US[sets, rules]
        yield at_most(f"choice: {sets:,} sets, {rules:,} rules", max(well_us, ejected_us), limit_us, "µs", 1)
