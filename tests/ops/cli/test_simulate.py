"""`gcompute simulate`."""

from __future__ import annotations

import json
from pathlib import Path

from ops.cli import exits
from tests.ops.cli.program import Program

SCENARIO = """
about: A quiet minute
length_s: 60
intervals: 6
nodes: [{name: plain, cores: 4, memory_mib: 8192, max_slots: 8}]
images: [{name: cat, duration_s: 1}]
accounts: [{name: ada, arrivals: {per_s: 1}, images: {cat: 1}}]
expect: [{figure: refused, at_most: 0}]
"""


def test_a_run_is_printed_as_tables(gcompute: Program, tmp_path: Path) -> None:
    file = tmp_path / "quiet.yaml"
    file.write_text(SCENARIO)
    done = gcompute("simulate", str(file))
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert lines[0] == "A quiet minute"
    assert lines[1] == "0:01:00 h, cores: 4, seed: 1"
    assert lines[3].startswith("ACCOUNT\tTASKS\tPER S\tWAIT P50")
    assert lines[4].startswith("ada\t")
    assert len([line for line in lines if line.startswith("0:00:")]) == 6
    assert "ok      refused: 0, at most 0 expected" in lines


def test_a_missed_expectation_is_the_exit_code(gcompute: Program, tmp_path: Path) -> None:
    file = tmp_path / "quiet.yaml"
    file.write_text(SCENARIO.replace("refused", "tasks"))
    done = gcompute("simulate", str(file))
    assert done.returncode == 1
    assert b"MISSED  tasks: " in done.stdout


def test_json_has_every_figure(gcompute: Program, tmp_path: Path) -> None:
    file = tmp_path / "quiet.yaml"
    file.write_text(SCENARIO)
    done = gcompute("simulate", str(file), "--json", "--seed", "7", "--length-s", "30")
    document = json.loads(done.stdout)
    assert (document["seed"], document["length_s"], document["scenario"]) == (7, 30.0, "quiet")
    assert document["all"]["tasks"] == sum(each["all"]["tasks"] for each in document["intervals"])
    assert document["expected"] == [{"expected": "refused: 0, at most 0 expected", "found": 0, "good": True}]


def test_a_mistake_in_the_file_is_one_line(gcompute: Program, tmp_path: Path) -> None:
    file = tmp_path / "quiet.yaml"
    file.write_text(SCENARIO.replace("{cat: 1}", "{dog: 1}"))
    done = gcompute("simulate", str(file))
    assert done.returncode == exits.CONFIG
    assert done.stderr.decode().splitlines() == [
        f"gcompute: {file}: accounts: ada: images: 'dog' is none of cat; see ops/simulator/README.md"
    ]


def test_scenarios_that_ship_are_listed(gcompute: Program) -> None:
    done = gcompute("simulate", "--list")
    assert done.returncode == 0
    assert b"flood\t" in done.stdout
    assert gcompute("simulate", "nothing").returncode == exits.USAGE
    unnamed = gcompute("simulate")
    assert unnamed.returncode == exits.USAGE
    assert b"name a scenario: a file, or one of azure, flood" in unnamed.stderr


def test_the_page_is_written_beside_the_tables(gcompute: Program, tmp_path: Path) -> None:
    file, target = tmp_path / "quiet.yaml", tmp_path / "quiet.html"
    file.write_text(SCENARIO)
    done = gcompute("simulate", str(file), "--html", str(target))
    assert done.returncode == 0
    assert target.read_text().startswith("<!doctype html>")
    assert gcompute("simulate", str(file), "--html", str(tmp_path / "no" / "q.html")).returncode == exits.IO
