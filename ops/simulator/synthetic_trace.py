"""Writes a small synthetic trace of one day in the format of the Azure Functions data set of 2019.

    python -m ops.simulator.synthetic_trace FOLDER [--functions 40] [--seed 1]

As in the data set, a few functions have most of the calls, many are called by timers or now and then, some follow the
day, and durations spread over four orders of magnitude. No line of it comes from the data set.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
from pathlib import Path
from random import Random
from typing import Final

from ops.simulator.azure import KEYS, PERCENTILES

MINUTES: Final = 1440
OWNERS: Final = 12
BUSIEST_PER_MINUTE: Final = 60.0
"""Mean calls a minute of the function that is called most."""
PEAK_MINUTE: Final = 840
"""The minute of the day with most calls, of functions that follow the day."""


def write(folder: Path, functions: int, seed: int) -> None:
    """Write the three files of a day, `invocations.csv`, `durations.csv` and `memory.csv`."""
    chance = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    calls: list[list[object]] = [[*KEYS, "Trigger", *range(1, MINUTES + 1)]]
    durations: list[list[object]] = [
        [
            *KEYS,
            "Average",
            "Count",
            "Minimum",
            "Maximum",
            *(f"percentile_Average_{each}" for each in PERCENTILES),
        ]
    ]
    memory: dict[tuple[str, str], list[object]] = {}
    for number in range(functions):
        owner = _hash(seed, "owner", int(OWNERS * chance.random() ** 2))
        app, name = _hash(seed, "app", owner, number // 2), _hash(seed, "function", number)
        per_minute = BUSIEST_PER_MINUTE / (number + 1) ** 1.3
        trigger = chance.choice(["timer", "http", "queue"])
        row = _timer(chance) if trigger == "timer" else _calls(chance, per_minute, trigger)
        calls.append([owner, app, name, trigger, *row])
        spread = _durations_ms(chance)
        mean = round(sum(spread) / len(spread))
        durations.append([owner, app, name, mean, sum(row), spread[0], spread[-1], *spread])
        memory.setdefault((owner, app), [owner, app, 1000, round(chance.lognormvariate(5.1, 0.5))])
    _write(folder / "invocations.csv", calls)
    _write(folder / "durations.csv", durations)
    _write(
        folder / "memory.csv",
        [["HashOwner", "HashApp", "SampleCount", "AverageAllocatedMb"], *memory.values()],
    )


def _timer(chance: Random) -> list[int]:
    every, first = chance.choice([1, 5, 15, 60]), chance.randrange(60)
    return [int((minute - first) % every == 0) for minute in range(MINUTES)]


def _calls(chance: Random, per_minute: float, trigger: str) -> list[int]:
    """Calls of people follow the day; those of a queue come in bursts."""
    rates = [
        per_minute * (1 + 0.8 * math.cos(2 * math.pi * (minute - PEAK_MINUTE) / MINUTES))
        if trigger == "http"
        else per_minute * (20 if chance.random() < 0.05 else 0)
        for minute in range(MINUTES)
    ]
    return [_poisson(chance, rate) for rate in rates]


def _poisson(chance: Random, mean: float) -> int:
    count, left = 0, mean
    while (left := left - chance.expovariate(1.0)) > 0:
        count += 1
    return count


def _durations_ms(chance: Random) -> list[int]:
    median, sigma = chance.lognormvariate(math.log(700), 1.5), chance.uniform(0.2, 1.0)
    return [round(median * math.exp(sigma * sigmas)) for sigmas in (-2.6, -2.3, -0.67, 0, 0.67, 2.3, 2.6)]


def _hash(seed: int, *parts: object) -> str:
    return hashlib.sha256(repr((seed, *parts)).encode()).hexdigest()


def _write(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--functions", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    write(options.folder, options.functions, options.seed)


if __name__ == "__main__":
    main()
