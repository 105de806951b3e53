"""The simulator held to reality: the same tasks are run both ways, and waits that differ much fall short."""

from __future__ import annotations

import heapq

import pytest

from ops.bench.simulated import compared
from ops.simulator.play import Play
from ops.simulator.scenario import read, shipped, shortened
from ops.simulator.sources import Planned, account_sources, course
from ops.simulator.virtual_set import VirtualTask


def test_the_tasks_that_are_run_for_real_are_those_that_are_simulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenario = shortened(read(shipped()["two-cores"]), 60.0)
    planned = list(heapq.merge(*map(course, account_sources(scenario))))
    play = Play(scenario)
    arrived: list[Planned] = []
    arrive = play.sets[0].arrive

    def note(task: VirtualTask) -> Exception | None:
        arrived.append(Planned(task.arrived_at, task.source, task.key, task.run_s))
        return arrive(task)

    monkeypatch.setattr(play.sets[0], "arrive", note)
    play.run()
    assert arrived == planned
    assert len(planned) > 100


@pytest.mark.parametrize(
    ("simulated_s", "good"),
    [(1.0, True), (0.81, True), (1.19, True), (0.79, False), (1.21, False), (None, False)],
)
def test_waits_that_differ_by_more_than_a_fifth_fall_short(simulated_s: float | None, good: bool) -> None:
    figure = compared("p50", 1.0, simulated_s)
    assert figure.good is good
    assert figure.target == "0.8 to 1.2 ×"
