"""Traces in the format of the Azure Functions data set: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from ops.simulator.azure import functions
from ops.simulator.durations import drawer
from ops.simulator.scenario import SCENARIOS
from ops.simulator.synthetic_trace import write
from sets.yaml_file import ConfigError

CALLS = """HashOwner,HashApp,HashFunction,Trigger,1,2,3
o1,a1,f1,http,2,0,3
o1,a1,f2,timer,0,0,0
o2,a2,f3,queue,1,1,1
"""
DURATIONS = """HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,percentile_Average_0,percentile_Average_1,\
percentile_Average_25,percentile_Average_50,percentile_Average_75,percentile_Average_99,percentile_Average_100
o1,a1,f1,100,5,50,400,50,50,80,100,200,400,400
o1,a1,f2,100,5,50,400,50,50,80,100,200,400,400
"""
MEMORY = """HashOwner,HashApp,SampleCount,AverageAllocatedMb
o1,a1,10,211.6
"""


class Day:
    """The files of a day, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.calls, self.durations, self.memory = (
            folder / f"{name}.csv" for name in ("calls", "durations", "memory")
        )
        self.calls.write_text(CALLS)
        self.durations.write_text(DURATIONS)
        self.memory.write_text(MEMORY)


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(tmp_path)


def test_functions_that_were_called_and_timed_are_read(day: Day) -> None:
    (found,) = functions(day.calls, day.durations, day.memory)
    assert (found.owner, found.name, found.memory_mib) == ("o1", "f1", 212)
    assert list(found.per_minute) == [2, 0, 3]
    draw = drawer(found.duration_s, Random(1))
    drawn = sorted(draw() for _ in range(1_000))
    assert drawn[0] >= 0.05
    assert drawn[-1] <= 0.4
    assert drawn[500] == pytest.approx(0.1, rel=0.1)


def test_calls_are_spread_over_their_minutes(day: Day) -> None:
    (found,) = functions(day.calls, day.durations, None)
    times = list(found.times(Random(1), 1e9, 1.0))
    assert [int(at_s // 60) for at_s in times] == [0, 0, 2, 2, 2]
    assert times == sorted(times)
    assert list(found.times(Random(1), 60.0, 1.0)) == times[:2]
    assert not list(found.times(Random(1), 1e9, 1e-9))


@pytest.mark.parametrize(
    ("name", "old", "new", "mistake"),
    [
        ("calls", "HashFunction", "Function", "calls.csv: line 1: the column HashFunction is missing"),
        ("calls", "http,2", "http,1e9", "calls.csv: line 2: 1: '1e9' is not a number from 0 to 10,000,000"),
        ("calls", "http,2", "http,two", "calls.csv: line 2: 1: 'two' is not a number from 0 to 10,000,000"),
        ("durations", "99,", "98,", "durations.csv: line 1: the column percentile_Average_99 is missing"),
        (
            "durations",
            "50,50,80",
            "50,,80",
            "durations.csv: line 2: percentile_Average_1: '' is not a number",
        ),
        ("memory", "211.6", "-1", "memory.csv: line 2: AverageAllocatedMb: '-1' is not a number"),
        ("calls", "f1", "f9", "calls.csv: holds no function that was called and is in durations.csv, too"),
    ],
)
def test_a_mistake_is_said_with_file_line_and_column(
    day: Day, name: str, old: str, new: str, mistake: str
) -> None:
    file: Path = getattr(day, name)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError) as raised:
        functions(day.calls, day.durations, day.memory)
    assert mistake in str(raised.value)


def test_a_file_that_does_not_exist_is_named(day: Day) -> None:
    day.memory.unlink()
    with pytest.raises(ConfigError, match=r"memory\.csv: No such file"):
        functions(day.calls, day.durations, day.memory)


def test_the_synthetic_day_is_what_its_script_writes(tmp_path: Path) -> None:
    write(tmp_path, 40, 1)
    for path in tmp_path.iterdir():
        assert path.read_text() == (SCENARIOS / "synthetic" / path.name).read_text()
