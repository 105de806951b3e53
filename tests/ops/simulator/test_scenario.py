"""A scenario's file: mistakes are said with the field's name, and its course can be pressed together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.simulator.report import check_expectations
from ops.simulator.scenario import REFERENCE, Scenario, mistakes, read, shipped, shortened
from sets.yaml_file import ConfigError, parse_as
from tests.conftest import ROOT

WHOLE = """
about: A test
length_s: 60
nodes:
  - {name: plain, cores: 4, memory_mib: 4096, max_slots: 8}
images:
  - {name: cat, duration_s: 1}
accounts:
  - {name: ada, arrivals: {per_s: 1}, images: {cat: 1}}
"""


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("length_s: 60", "length_s: 0", "scenario.yaml: length_s: "),
        ("length_s: 60", "length_h: 1", "length_h"),
        ("cores: 4", "cores: many", "nodes[0].cores"),
        ("cores: 4", "cores: 4, max: 1", "nodes[0]"),
        (
            "cores: 4, m",
            "cores: 4, count: 1000000, m",
            "nodes: cores: at most 1,000,000 in all; these have 4,000,000",
        ),
        ("images: {cat: 1}", "images: {dog: 1}", "accounts: ada: images: 'dog' is none of cat"),
        ("images: {cat: 1}", "images: {}", "accounts: ada: images: name at least one image"),
        ("{per_s: 1}", "{}", "accounts: ada: arrivals: give per_s above 0, or bursts"),
        ("{per_s: 1}", "{per_s: 1, from_s: 9, until_s: 8}", "arrivals: until_s: is not after from_s"),
        ("duration_s: 1", "duration_s: -1", "images: cat: duration_s: seconds above 0"),
        ("duration_s: 1", "duration_s: {}", "duration_s: give one of uniform, exponential"),
        ("duration_s: 1", "duration_s: {uniform: [3, 2]}", "uniform: the lower bound comes first"),
        ("duration_s: 1", "duration_s: {percentiles: {0: 1, 50: 2}}", "percentiles: give those of 0 and 100"),
        ("duration_s: 1", "duration_s: 1, features: [avx]", "images: cat: features: no node has all of avx"),
        ("about: A test", "about: A test\nlimits: {max_slots: 3}", "limits.max_slots: belongs to `nodes`"),
        ("about: A test", "about: A test\nlimits: {keep: 3}", "keep"),
        (
            "about: A test",
            "about: A test\nfailures: [{nodes: big, at_s: 1, for_s: 1}]",
            "failures[0].nodes: 'big' is none of plain",
        ),
        (
            "about: A test",
            "about: A test\nfailures: [{nodes: plain, at_s: 1, for_s: 1, set: b}]",
            "failures[0].set: 'b' is none of s1",
        ),
        (
            "about: A test",
            "about: A test\nfailures: [{at_s: 1, for_s: 1}]",
            "failures[0]: name the `nodes` that die, or the `set` that dies as a whole",
        ),
        (
            "about: A test",
            "about: A test\nfailures: [{set: s1, at_s: 1, for_s: 1}]",
            "failures[0].set: a set dies as a whole only beside others: `sets` above 1",
        ),
        (
            "about: A test",
            "about: A test\nsets: 2\nfailures: [{set: s1, share: 0.5, at_s: 1, for_s: 1}]",
            "failures[0].share: belongs to `nodes`; a set dies as a whole",
        ),
        ("about: A test", "about: A test\nexpect: [{figure: lost}]", "expect[0]: give at_most or at_least"),
        (
            "about: A test",
            "about: A test\nexpect: [{figure: lost, at_most: 1, from_s: 60}]",
            "expect[0].from_s: is not before until_s, or not before the end of the run",
        ),
        (
            "about: A test",
            "about: A test\nexpect: [{figure: lost, at_most: 1, from_s: 9, until_s: 9}]",
            "expect[0].from_s: is not before until_s",
        ),
        (
            "about: A test",
            "about: A test\nexpect: [{figure: luck, at_most: 1}]",
            "scenario.yaml: expect[0].figure: 'luck' is none of tasks, per_s",
        ),
        (
            "about: A test",
            "about: A test\nexpect: [{figure: lost, account: eve, at_most: 1}]",
            "expect[0].account: 'eve' is none of ada",
        ),
    ],
)
def test_a_mistake_is_said_with_its_field(tmp_path: Path, old: str, new: str, mistake: str) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(WHOLE.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        check_expectations(read(file), file)
    assert mistake in str(raised.value)


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ("{name: ada, ", "accounts: the name 'ada' appears twice"),
        ("{name: ad, count: 2000, ", "accounts: the name 'ad-7' appears twice"),
        ("{name: trace, ", "accounts: trace: is the name under which the tasks of the `trace` are counted"),
    ],
)
def test_names_appear_once(tmp_path: Path, more: str, mistake: str) -> None:
    file = tmp_path / "scenario.yaml"
    rest = "arrivals: {per_s: 1}, images: {cat: 1}}\n"
    file.write_text(
        WHOLE
        + f"  - {more}{rest}  - {{name: ad-7, {rest}"
        + "trace: {invocations: i.csv, durations: d.csv}\n"
    )
    with pytest.raises(ConfigError, match=mistake):
        read(file)


def test_the_example_of_the_page_is_a_scenario() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / REFERENCE).read_text(), re.DOTALL)
    scenario = parse_as(Scenario, example, REFERENCE, REFERENCE)
    assert list(mistakes(scenario)) == []


def test_a_course_that_is_pressed_keeps_its_rates() -> None:
    whole = read(shipped()["flood"])
    short = shortened(whole, whole.length_s / 10)
    arrivals = short.accounts[1].arrivals
    assert (arrivals.per_s, arrivals.from_s, arrivals.until_s) == (100, 180, 240)
    assert short.expect[0].from_s == 180
    assert short.images == whole.images
