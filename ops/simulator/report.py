"""The figures of a run: by account, by interval, and those that a scenario expects. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ops.simulator.scenario import Expectation, Scenario
from ops.simulator.tally import Counts, Sample, Tally
from sets.yaml_file import ConfigError

QUANTILES: Final = {"wait_p50_s": 0.5, "wait_p95_s": 0.95, "wait_p99_s": 0.99}

ROWS_MOST: Final = 24
"""Most rows of the table over time."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of some accounts over some time. Waits are seconds from a task's arrival until its slot has it.

    `cold` and `utilisation` are shares of 1: of the tasks that began, of the cores that were up. `cores` are those in
    use on average, `share` the share of all cores in use. `fairness`: see `Sample`; None where nobody competed.
    """

    tasks: int
    per_s: float
    wait_p50_s: float | None
    wait_p95_s: float | None
    wait_p99_s: float | None
    wait_max_s: float | None
    cold_starts: int
    cold: float
    cores: float
    utilisation: float
    share: float
    refused: int
    failed: int
    lost: int
    gave_way: int
    lost_core_s: float
    waiting: float
    idle_slots: float
    fairness: float | None


@dataclass(frozen=True, slots=True)
class Interval:
    """Figures of all accounts, and of each, over an interval that begins at `at_s`."""

    at_s: float
    all: Figures
    accounts: dict[str, Figures]


@dataclass(frozen=True, slots=True)
class Met:
    """An expectation and the figure that was found. `words`: both, for people."""

    expectation: Expectation
    found: float | None
    good: bool
    words: str


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `rows`: its intervals, some in one, for a table. `took_s`: CPU time.

    `slots_gib`: the memory that slots held on average, idle ones included.
    """

    name: str
    scenario: Scenario
    all: Figures
    accounts: dict[str, Figures]
    intervals: list[Interval]
    rows: list[Interval]
    expected: list[Met]
    took_s: float
    slots_gib: float

    @property
    def good(self) -> bool:
        """True if every expectation is met."""
        return all(met.good for met in self.expected)

    def document(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "scenario": self.name,
            "about": self.scenario.about,
            "seed": self.scenario.seed,
            "length_s": self.scenario.length_s,
            "cores": self.scenario.cores,
            "took_s": round(self.took_s, 3),
            "slots_gib": round(self.slots_gib, 3),
            "all": asdict(self.all),
            "accounts": {name: asdict(figures) for name, figures in self.accounts.items()},
            "intervals": [asdict(interval) for interval in self.intervals],
            "expected": [
                {"expected": met.words, "found": met.found, "good": met.good} for met in self.expected
            ],
        }


def report_of(name: str, scenario: Scenario, tally: Tally, took_s: float) -> Report:
    """Sum up a run whose expectations `check_expectations` has passed."""
    every = range(scenario.intervals)
    step = math.ceil(scenario.intervals / ROWS_MOST)
    return Report(
        name,
        scenario,
        figures_of(tally, tally.groups, every),
        _by_account(tally, every),
        [_interval(tally, [number]) for number in every],
        [_interval(tally, every[number : number + step]) for number in every[::step]],
        [_met(each, tally, scenario) for each in scenario.expect],
        took_s,
        tally.slots_mib_s / 1024 / scenario.length_s,
    )


def check_expectations(scenario: Scenario, path: Path) -> None:
    """Raise `ConfigError`, which names the scenario's file, for an expectation of a figure that does not exist."""
    names = Figures.__slots__
    for number, each in enumerate(scenario.expect):
        if each.figure not in names:
            raise ConfigError(
                f"{path}: expect[{number}].figure: {each.figure!r} is none of {', '.join(names)}"
            )


def figures_of(tally: Tally, groups: Iterable[str], intervals: Sequence[int]) -> Figures:
    """The figures of these accounts over these intervals."""
    numbers = [tally.groups.index(group) for group in groups]
    counts = tally.of(numbers, intervals)
    everybody = counts if len(numbers) == len(tally.groups) else _core_s(tally, intervals)
    samples = [sample for number in intervals for sample in tally.samples[number]]
    span_s = max(1, len(intervals)) * tally.interval_s
    cores = _mean(samples, lambda sample: sample.cores)
    used = counts.core_s / span_s
    return Figures(
        tasks=counts.arrived,
        per_s=counts.arrived / span_s,
        **{name: _quantile(counts, quantile) for name, quantile in QUANTILES.items()},
        wait_max_s=counts.longest_s if counts.began else None,
        cold_starts=counts.cold,
        cold=_ratio(counts.cold, counts.began),
        cores=used,
        utilisation=_ratio(used, cores),
        share=_ratio(counts.core_s, everybody if isinstance(everybody, float) else everybody.core_s),
        refused=counts.refused,
        failed=counts.failed,
        lost=counts.lost,
        gave_way=counts.gave_way,
        lost_core_s=counts.lost_core_s,
        waiting=_mean(samples, lambda sample: sample.waiting),
        idle_slots=_mean(samples, lambda sample: sample.idle),
        fairness=min((each.fairness for each in samples if each.fairness is not None), default=None),
    )


def _interval(tally: Tally, intervals: Sequence[int]) -> Interval:
    return Interval(
        intervals[0] * tally.interval_s,
        figures_of(tally, tally.groups, intervals),
        _by_account(tally, intervals),
    )


def _by_account(tally: Tally, intervals: Sequence[int]) -> dict[str, Figures]:
    return {group: figures_of(tally, [group], intervals) for group in tally.groups}


def _core_s(tally: Tally, intervals: Sequence[int]) -> float:
    return sum(group[number].core_s for group in tally.counts for number in intervals)


def _met(wanted: Expectation, tally: Tally, scenario: Scenario) -> Met:
    first = math.ceil(wanted.from_s / tally.interval_s - 1e-9)
    last = min(scenario.intervals, math.floor(wanted.until_s / tally.interval_s + 1e-9))
    intervals = range(first, max(last, first + 1)) if first < scenario.intervals else range(0)
    groups = tally.groups if wanted.account is None else [wanted.account]
    found: float | None = getattr(figures_of(tally, groups, intervals), wanted.figure)
    good = found is not None
    bounds = []
    if wanted.at_most is not None:
        good = good and found is not None and found <= wanted.at_most
        bounds.append(f"at most {wanted.at_most:g}")
    if wanted.at_least is not None:
        good = good and found is not None and found >= wanted.at_least
        bounds.append(f"at least {wanted.at_least:g}")
    whose = "" if wanted.account is None else f" of {wanted.account}"
    until_s = min(wanted.until_s, scenario.length_s)
    when = "" if len(intervals) == scenario.intervals else f" from {wanted.from_s:g} s to {until_s:g} s"
    value = "none" if found is None else f"{found:.4g}"
    return Met(wanted, found, good, f"{wanted.figure}{whose}{when}: {value}, {' and '.join(bounds)} expected")


def _quantile(counts: Counts, quantile: float) -> float | None:
    # The sketch may be wrong by a hundredth, also beyond the longest wait of all.
    found = counts.waits.get_quantile_value(quantile)
    return None if found is None else min(found, counts.longest_s)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean(samples: Sequence[Sample], number: Callable[[Sample], float]) -> float:
    return sum(map(number, samples)) / len(samples) if samples else 0.0
