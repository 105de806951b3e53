"""Histories of looks at a task, legal and illegal."""

from __future__ import annotations

import pytest

from tests.cluster.history import Look, faults_in


def look(sent_at: float, ended_at: float, state: str = "", status: int = 200, found: str = "a-1") -> Look:
    return Look("a-1", sent_at, ended_at, status, state, found)


def test_a_task_that_runs_is_lost_runs_again_and_ends() -> None:
    states = ["queued", "running", "queued", "running", "succeeded", "succeeded"]
    assert list(faults_in([look(at, at + 0.5, state) for at, state in enumerate(states)])) == []


def test_looks_at_the_same_time_may_come_in_any_order() -> None:
    assert list(faults_in([look(1, 3, "succeeded"), look(2, 4, "running")])) == []


def test_refusals_show_nothing() -> None:
    assert list(faults_in([look(1, 2, "succeeded"), look(3, 4, status=503, found="")])) == []


@pytest.mark.parametrize(
    ("looks", "fault"),
    [
        (
            [look(1, 2, "succeeded"), look(3, 4, "running")],
            "went back: a-1 had ended at 2.00 and is running at 3.00",
        ),
        ([look(1, 2, "succeeded"), look(3, 4, "failed")], "doubled: a-1 was succeeded at 2.00 and is failed"),
        ([look(1, 2, status=404, found="")], "lost: a-1 was accepted before 1.00, and unknown then"),
        ([look(1, 2, "queued", 202, "a-2")], "doubled: a-2 was found in the place of a-1"),
    ],
)
def test_an_illegal_history_is_told(looks: list[Look], fault: str) -> None:
    assert list(faults_in(looks)) == [fault]
