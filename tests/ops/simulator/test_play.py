"""Runs of small scenarios in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.simulator.play import Play
from ops.simulator.report import Figures, Report, report_of
from ops.simulator.scenario import read, shipped, shortened
from ops.simulator.virtual_set import VirtualSet

TASKS_MOST = 10_000
"""About how many tasks a scenario that ships has here: some seconds of work on a busy machine."""
SMALL = """
about: A test
length_s: 600
intervals: 10
nodes:
  - {name: plain, cores: 4, memory_mib: 8192, max_slots: 8, count: 2}
images:
  - {name: cat, duration_s: 1}
  - {name: ocr, duration_s: {lognormal: {median: 1, p95: 4}}, start_s: 0.5}
accounts:
  - {name: ada, arrivals: {per_s: 2}, images: {cat: 3, ocr: 1}}
"""


def played(tmp_path: Path, text: str, seed: int = 1) -> Report:
    file = tmp_path / "scenario.yaml"
    file.write_text(f"{text}\nseed: {seed}\n")
    scenario = read(file)
    return report_of("test", scenario, Play(scenario).run(), 0.0)


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    first, again, other = (played(tmp_path, SMALL, seed) for seed in (1, 1, 2))
    assert first.document() == again.document()
    assert first.all != other.all


def test_the_same_seed_gives_the_same_choices_of_the_router(tmp_path: Path) -> None:
    first, again = (played(tmp_path, SMALL + "sets: 3\n") for _ in range(2))
    assert first.document() == again.document()


def test_a_load_that_fits_uses_the_cores_that_it_must(tmp_path: Path) -> None:
    figures = played(tmp_path, SMALL).all
    # Two a second, of 1 s and of some 1.4 s on average.
    assert figures.tasks == pytest.approx(1_200, rel=0.15)
    assert figures.utilisation == pytest.approx(2.2 / 8, rel=0.2)
    assert figures.wait_p50_s == 0.0
    assert 0 < figures.cold_starts <= 16
    assert (figures.refused, figures.failed, figures.lost, figures.gave_way) == (0, 0, 0, 0)


def test_the_table_sums_what_the_intervals_have(tmp_path: Path) -> None:
    report = played(tmp_path, SMALL)
    for name in ("tasks", "cold_starts"):
        assert sum(getattr(each.all, name) for each in report.intervals) == getattr(report.all, name)
    mean = sum(each.all.cores for each in report.intervals) / len(report.intervals)
    assert mean == pytest.approx(report.all.cores)


def test_weights_share_the_cores_of_two_floods(tmp_path: Path) -> None:
    report = played(
        tmp_path,
        SMALL
        + """
  - {name: large, weight: 3, arrivals: {per_s: 20}, images: {cat: 1}, kind: async}
  - {name: small, arrivals: {per_s: 20}, images: {cat: 1}, kind: async}
""",
    )
    last = report.intervals[-1]
    assert last.accounts["large"].cores / last.accounts["small"].cores == pytest.approx(3, rel=0.15)
    assert last.all.utilisation > 0.98
    assert last.all.fairness is not None
    assert last.all.fairness > 0.9


def test_tasks_of_a_node_that_dies_run_again(tmp_path: Path) -> None:
    report = played(tmp_path, SMALL + "failures: [{nodes: plain, share: 0.5, at_s: 100, for_s: 210}]\n")
    figures = report.all
    assert figures.lost > 0
    assert figures.failed == 0
    assert figures.lost_core_s > 0
    # Half of the cores are away while the set knows it, and all are back afterwards.
    assert [round(each.all.cores / each.all.utilisation) for each in report.intervals] == [
        8,
        6,
        4,
        4,
        4,
        *[8] * 5,
    ]


SETS = (
    SMALL.replace("per_s: 2}", "per_s: 6}")
    + """
  - {name: night, kind: async, arrivals: {per_s: 3}, images: {ocr: 1}}
sets: 3
failures: [{set: s2, at_s: 121, for_s: 181}]
"""
)


def test_the_router_sends_the_work_of_a_dead_set_to_the_others(tmp_path: Path) -> None:
    report = played(tmp_path, SETS)
    assert report.all.refused == 0
    assert report.all.lost > 0
    # Calls that the dead set was answering are repeated elsewhere, as far as the budget of retries goes.
    at_the_death = report.intervals[2]
    assert at_the_death.all.failed < at_the_death.all.lost
    assert report.all.failed == at_the_death.all.failed
    # Its cores are away, and back afterwards.
    assert [round(each.all.cores / each.all.utilisation) for each in report.intervals[1:7]] == [
        24,
        16,
        16,
        16,
        24,
        24,
    ]


def test_asynchronous_tasks_of_a_dead_set_run_once_it_is_back(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(SETS)
    play = Play(read(file))
    play.agenda.run(122.0)
    dead = play.sets[1]
    assert dead.is_down
    kept = list(dead.tasks.values())
    assert kept
    assert not any(task.steady for task in kept)
    play.agenda.run(301.0)
    assert list(dead.tasks.values()) == kept
    play.agenda.run(400.0)
    assert not any(task.id in dead.tasks for task in kept)


def test_a_set_that_is_back_gets_its_part_of_the_work_again(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(SETS)
    play = Play(read(file))
    play.run()
    assert len(play.sets[1].slots) == pytest.approx(len(play.sets[0].slots), abs=6)
    assert play.front is not None
    assert all(load.inflight >= 0 for load in play.front.loads.values())


def test_spare_tasks_give_way_and_run_again(tmp_path: Path) -> None:
    report = played(
        tmp_path,
        SMALL
        + """
  - {name: idle, priority: spare, kind: async, arrivals: {per_s: 4}, images: {ocr: 1}}
  - {name: peak, arrivals: {per_s: 3, from_s: 200, until_s: 260}, images: {cat: 1}}
""",
    )
    assert report.accounts["idle"].gave_way > 0
    assert report.accounts["idle"].failed == 0
    wait_s = report.accounts["peak"].wait_p95_s
    assert wait_s is not None
    assert wait_s < 1.0


def test_a_cell_is_not_woken_more_and_more_often(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A short wait asks for an earlier time than the one that is noted, which must not be noted again afterwards."""
    woken: list[float] = []
    wake = VirtualSet._wake

    def note(virtual_set: VirtualSet, what: object) -> None:
        woken.append(virtual_set._agenda.now)
        wake(virtual_set, what)

    monkeypatch.setattr(VirtualSet, "_wake", note)
    large = "  - {name: large, duration_s: 3, cpu: 4}\naccounts:"
    played(
        tmp_path,
        SMALL.replace("accounts:", large).replace("per_s: 2}", "per_s: 4}")
        + "  - {name: bob, arrivals: {per_s: 0.1}, images: {large: 1}}\nlimits: {keep_idle_s: 30}\n",
    )
    assert len(woken) > 50
    # A cell may ask for the present time, once it was woken then.
    assert len(woken) < 1.2 * len(set(woken))


def test_a_queue_that_is_full_refuses(tmp_path: Path) -> None:
    report = played(
        tmp_path, SMALL.replace("per_s: 2", "per_s: 20") + "limits: {max_waiting_account: 50}\nsets: 2\n"
    )
    assert report.all.refused > 0
    assert report.all.waiting <= 2 * 50


def test_tasks_that_wait_for_too_long_fail(tmp_path: Path) -> None:
    report = played(tmp_path, SMALL.replace("per_s: 2}", "per_s: 20}, queue_timeout_s: 5"))
    assert report.all.failed > 0
    assert report.all.wait_max_s is not None
    assert report.all.wait_max_s <= 5.0


def test_an_expectation_that_is_missed_is_told(tmp_path: Path) -> None:
    report = played(
        tmp_path,
        SMALL
        + "expect: [{figure: tasks, at_most: 5}, {figure: wait_max_s, account: ada, at_most: 5, until_s: 60}]\n",
    )
    assert [met.good for met in report.expected] == [False, True]
    assert not report.good
    assert report.expected[1].words.startswith("wait_max_s of ada from 0 s to 60 s: ")


@pytest.mark.parametrize("name", list(shipped()))
def test_a_scenario_that_ships_plays_when_it_is_short(name: str) -> None:
    """Each of its tasks began, waits or was refused; nothing is counted twice."""
    whole = read(shipped()[name])
    per_s = sum(account.arrivals.per_s for account in whole.accounts) or 1.0
    scenario = shortened(whole, min(120.0, TASKS_MOST / per_s))
    play = Play(scenario)
    figures: Figures = report_of(name, scenario, play.run(), 0.0).all
    began = sum(each.began for group in play.tally.counts for each in group)
    expired = sum(task.waited_s < 0 for each in play.sets for task in each.tasks.values())
    assert figures.tasks > 0
    assert figures.tasks == began + expired + figures.refused
