"""Compares the keep-alive that is learnt with a fixed one: cold starts in a replay of a day, at equal memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ops.bench.figures import Figure, Say
from ops.bench.stack import Stack
from ops.simulator.play import Play
from ops.simulator.report import Report, report_of
from ops.simulator.scenario import Nodes, Scenario, SetLimits, Trace
from ops.simulator.synthetic_trace import write
from scheduler.policy.limits import KeepAlive

FIXED_S: Final = 600.0
"""The fixed keep-alive, in seconds."""
KEEP_S: Final = (FIXED_S / 4, 4 * FIXED_S)
"""Where the price of a start is searched at which what is learnt needs as much memory as what is fixed, in seconds."""
AT_MOST: Final = 2 / 3
"""Most cold starts, as a share of those with a fixed keep-alive."""
FUNCTIONS_PER_ROUND: Final = 40
SEED: Final = 1


def compare(_: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Replay a synthetic day of `FUNCTIONS_PER_ROUND` functions for each round with both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, FUNCTIONS_PER_ROUND * rounds, SEED)
        fixed = replay(folder, FIXED_S, KeepAlive.FIXED)
        say(f"fixed, {FIXED_S:g} s: {_words(fixed)}")
        low, high = KEEP_S
        learnt = replay(folder, low, KeepAlive.LEARNT)
        say(f"learnt, {low:g} s: {_words(learnt)}")
        for _round in range(rounds // 2):
            middle = (low + high) / 2
            found = replay(folder, middle, KeepAlive.LEARNT)
            say(f"learnt, {middle:g} s: {_words(found)}")
            if found.slots_gib <= fixed.slots_gib:
                low, learnt = middle, found
            else:
                high = middle
    ratio = learnt.all.cold_starts / fixed.all.cold_starts
    memory = learnt.slots_gib / fixed.slots_gib
    yield Figure(
        "cold starts of a synthetic day, learnt over fixed keep-alive of 10 min, at equal memory",
        ratio,
        f"{ratio:.2f} × with {memory:.2f} × the memory",
        f"≤ {AT_MOST:.2f} ×",
        ratio <= AT_MOST,
    )


def replay(folder: Path, keep_s: float, keep_alive: KeepAlive) -> Report:
    """Play the day in this folder on nodes that have room for all slots."""
    scenario = Scenario(
        about="a day of calls",
        length_s=86_400.0,
        nodes=(Nodes("plain", 64.0, 1_000_000, 2_000, count=16),),
        trace=Trace("invocations.csv", "durations.csv", "memory.csv", start_s=0.5),
        limits=SetLimits(keep_idle_s=keep_s, keep_alive=keep_alive),
        folder=str(folder),
    )
    return report_of("day", scenario, Play(scenario).run(), 0.0)


def _words(report: Report) -> str:
    return (
        f"{report.all.cold_starts:,} of {report.all.tasks:,} tasks cold, {report.slots_gib:.2f} GiB in slots"
    )
