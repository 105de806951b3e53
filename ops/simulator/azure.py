"""Reads traces in the format of the Azure Functions data set of 2019: calls by minute, and percentiles of durations.

The data set is described in "Serverless in the Wild" (USENIX ATC 2020). Its rows are functions, and its owners are the
accounts here. A row is kept as one number for each minute, so that memory does not grow with the number of calls.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from ops.simulator.durations import Spread
from sets.yaml_file import ConfigError

MINUTE_S: Final = 60.0
KEYS: Final = ("HashOwner", "HashApp", "HashFunction")
PERCENTILES: Final = (0, 1, 25, 50, 75, 99, 100)
USUAL_MEMORY_MIB: Final = 170
"""Memory of an application that the trace has no figure for: the median of the data set's applications."""
SHORTEST_S: Final = 0.001
"""Shortest duration, in seconds: the data set has whole milliseconds, and many zeros."""
CALLS_MOST: Final = 10_000_000
"""Most calls of a function in one minute: their times are drawn together, so a mistake must not use up memory."""
NAME_CHARS: Final = 12
"""Characters of a hash that are kept as a name."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the trace. `per_minute`: how often it was called in each minute."""

    owner: str
    name: str
    per_minute: array[int]
    duration_s: Spread
    memory_mib: int

    def times(self, chance: Random, length_s: float, of_all: float) -> Iterator[float]:
        """Yield the times of its calls within `length_s`, in order; within a minute they are at random.

        `of_all`: the share of the calls that is kept.
        """
        for minute, calls in enumerate(self.per_minute):
            begins_s = minute * MINUTE_S
            if begins_s >= length_s:
                return
            if of_all < 1.0:
                calls = sum(chance.random() < of_all for _ in range(calls))
            for at_s in sorted(begins_s + MINUTE_S * chance.random() for _ in range(calls)):
                if at_s < length_s:
                    yield at_s


def functions(invocations: Path, durations: Path, memory: Path | None) -> list[Function]:
    """Read the functions of a day that were called and whose durations are known.

    Raises `ConfigError`, which names the file, the line and the column.
    """
    spreads = {_key(row): _spread(row) for row in _rows(durations, (*KEYS, *map(_percentile, PERCENTILES)))}
    memory_mib = {} if memory is None else _memory_mib(memory)
    found = []
    for row in _rows(invocations, KEYS):
        spread = spreads.get(_key(row))
        per_minute = row.minutes()
        if spread is not None and any(per_minute):
            owner, app, name = _key(row)
            found.append(
                Function(
                    owner[:NAME_CHARS],
                    name[:NAME_CHARS],
                    per_minute,
                    spread,
                    memory_mib.get((owner, app), USUAL_MEMORY_MIB),
                )
            )
    if not found:
        raise ConfigError(f"{invocations}: holds no function that was called and is in {durations.name}, too")
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    path: Path
    line: int
    cells: dict[str, str]

    def number(self, column: str, most: float = 1e12) -> float:
        try:
            found = float(self.cells[column])
        except (TypeError, ValueError):
            found = -1.0
        if not 0 <= found <= most:
            raise ConfigError(
                f"{self.path}: line {self.line}: {column}: {self.cells[column]!r} is not a number from 0 to {most:,.0f}"
            )
        return found

    def minutes(self) -> array[int]:
        """The calls in each minute: the columns `1`, `2` and so on."""
        count = 1
        while str(count) in self.cells:
            count += 1
        return array("L", [int(self.number(str(minute), CALLS_MOST)) for minute in range(1, count)])


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(f"{path}: line 1: the column {missing[0]} is missing")
            for cells in reader:
                yield _Row(path, reader.line_num, cells)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: is no table of comma-separated values: {error}") from error


def _key(row: _Row) -> tuple[str, str, str]:
    owner, app, name = (row.cells[column] for column in KEYS)
    return owner, app, name


def _percentile(percent: int) -> str:
    return f"percentile_Average_{percent}"


def _spread(row: _Row) -> Spread:
    points: dict[float, float] = {}
    least = SHORTEST_S
    for percent in PERCENTILES:
        # The data set's percentiles are of averages over 30 s, and do not always rise.
        least = points[percent] = max(least, row.number(_percentile(percent)) / 1000)
    return Spread(percentiles=points)


def _memory_mib(path: Path) -> dict[tuple[str, str], int]:
    column = "AverageAllocatedMb"
    return {
        (row.cells["HashOwner"], row.cells["HashApp"]): max(1, round(row.number(column)))
        for row in _rows(path, ("HashOwner", "HashApp", column))
    }
