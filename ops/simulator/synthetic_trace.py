"""Writes a small synthetic trace of one day in the format of the Azure Functions data set of 2019.

    python -m ops.simulator.synthetic_trace FOLDER [--functions 40] [--seed 1]

It is shaped after what "Serverless in the Wild" says of the data set: 45 % of functions are called once an hour or
less, 81 % once a minute or less; one of six is called by a timer. Of the others, some are called at random, some in
sessions, some while a queue is not empty, some periodically. Durations spread over four orders of magnitude. No
function is called more often than ten times a minute: busy ones are never cold, and would only make the day longer. No
line of it comes from the data set.
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
CALLS_MEDIAN: Final = 40.0
"""Calls a day of the median function that no timer calls."""
CALLS_SIGMA: Final = 4.1
"""Standard deviation of the logarithm of calls a day."""
BUSIEST_PER_MINUTE: Final = 10.0
"""Most calls of a function a minute, on average over the day."""
TIMER_SHARE: Final = 0.16
EVERY_MINUTES: Final = {1: 15, 5: 30, 10: 10, 15: 15, 30: 10, 60: 15, 1440: 5}
"""How often timers call, and how many of a hundred do."""
SESSION_CALLS: Final = 6
"""Calls of a session on average, one each minute or so."""
BUSY_SHARE: Final = 0.05
"""Share of the time in which a queue has tasks."""
BUSY_MINUTES: Final = (1.0, 30.0)
"""Bounds of the mean time, in minutes, for which a queue has tasks before it is empty again."""
PERIODIC_SHARE: Final = 0.1
"""Share of the functions without a timer that something outside calls periodically."""
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
        trigger, row = _course(chance)
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


def _course(chance: Random) -> tuple[str, list[int]]:
    """The trigger of a function and its calls in each minute."""
    if chance.random() < TIMER_SHARE:
        every = chance.choices(list(EVERY_MINUTES), list(EVERY_MINUTES.values()))[0]
        first = chance.randrange(every)
        return "timer", [int(minute % every == first) for minute in range(MINUTES)]
    per_day = chance.lognormvariate(math.log(CALLS_MEDIAN), CALLS_SIGMA)
    per_minute = min(per_day / MINUTES, BUSIEST_PER_MINUTE)
    trigger = chance.choice(["http", "http sessions", "queue"])
    if chance.random() < PERIODIC_SHARE:
        every = max(1, round(1 / per_minute)) if per_minute else MINUTES
        first = chance.randrange(every)
        return "http", [round(max(per_minute, 1.0)) * (minute % every == first) for minute in range(MINUTES)]
    if trigger == "queue":
        return trigger, _bursts(chance, per_minute)
    # Calls of people follow the day.
    day = [1 + 0.8 * math.cos(2 * math.pi * (minute - PEAK_MINUTE) / MINUTES) for minute in range(MINUTES)]
    if trigger == "http":
        return trigger, [_poisson(chance, per_minute * part) for part in day]
    calls = [0] * MINUTES
    for minute, part in enumerate(day):
        for _ in range(_poisson(chance, per_minute / SESSION_CALLS * part)):
            at = minute
            while at < MINUTES:
                calls[at] += 1
                at += int(chance.expovariate(1.0))
                if chance.random() < 1 / SESSION_CALLS:
                    break
    return "http", calls


def _bursts(chance: Random, per_minute: float) -> list[int]:
    """Calls of a queue that fills now and then."""
    low, high = map(math.log, BUSY_MINUTES)
    stays_busy = 1 - 1 / math.exp(chance.uniform(low, high))
    begins = (1 - stays_busy) * BUSY_SHARE / (1 - BUSY_SHARE)
    busy, calls = chance.random() < BUSY_SHARE, []
    for _ in range(MINUTES):
        calls.append(_poisson(chance, per_minute / BUSY_SHARE) if busy else 0)
        busy = chance.random() < (stays_busy if busy else begins)
    return calls


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
