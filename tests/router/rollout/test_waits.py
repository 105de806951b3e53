"""Words for what a rollout waits for, how long at most, and what comes then."""

from __future__ import annotations

from typing import Any

import pytest

from router.rollout.record import Abort, Pause, Progress
from router.rollout.states import Phase
from router.rollout.waits import waits_of
from router.routing.plan import Step, Undecided
from tests.router.rollout.release import FEW, UNSURE, Release, plan


def told(release: Release) -> dict[str, Any]:
    found = waits_of(release.progress)
    assert found is not None
    return found


def test_the_hold_then_a_verdict_then_somebody() -> None:
    release = Release(
        plan(Step(1_000, 60.0), Step(5_000, 60.0), max_wait_s=300.0, max_requests=10**6)
    ).start()
    release.run(20, UNSURE)
    assert told(release) == {
        "for": "the hold of step 1",
        "at_most_s": pytest.approx(40, abs=2),
        "then": "step 2, if the checks pass; else it waits for them",
    }
    release.run(50, UNSURE)
    assert release.phase is Phase.WAITING
    assert told(release) == {
        "for": "a verdict on step 1 (or 1000000 requests of the canary)",
        "at_most_s": pytest.approx(290, abs=3),
        "then": "it pauses",
    }
    release.run(300, UNSURE)
    assert told(release) == {
        "for": "somebody to resume, skip or abort",
        "at_most_s": None,
        "then": "nothing: the checks go on",
    }


def test_what_comes_after_the_wait_is_what_the_plan_says() -> None:
    release = Release(plan(Step(1_000, 10.0), on_no_data=Undecided.ABORT), requests=0.0).start()
    release.run(12, FEW)
    assert told(release)["then"] == "it aborts"


def test_a_gate_is_waited_for_a_day() -> None:
    release = Release(plan(Step(1_000, 10.0, gate="http://gate/"))).start()
    release.run(60)
    assert told(release) == {
        "for": "the gate of step 1",
        "at_most_s": pytest.approx(86_340, abs=3),
        "then": "it pauses",
    }


def test_the_last_step_is_followed_by_the_end() -> None:
    release = Release(plan(Step(1_000, 10.0))).start()
    assert told(release)["then"].startswith("done, if the checks pass")


def test_nothing_is_waited_for_before_and_after() -> None:
    assert waits_of(Progress()) is None
    release = Release(plan()).start()
    release.happen(Pause())
    release.happen(Abort(at_once=True))
    assert release.phase is Phase.ABORTED
    assert waits_of(release.progress) is None
