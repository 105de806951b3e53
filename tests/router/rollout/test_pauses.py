"""A release that cannot be judged: how long it waits, what it does then, and how it reminds its operator."""

from __future__ import annotations

import pytest

from router.rollout.record import Pause, Resume
from router.rollout.states import Phase
from router.rollout.status import describe
from router.routing.plan import Step, Undecided
from tests.router.rollout.release import FAIL, PASS, UNSURE, Release, plan
from tests.router.rollout.test_progress import a_table

STEP = Step(1_000, 10.0)


def kinds(release: Release) -> list[str]:
    return [event.kind for event in release.progress.events]


@pytest.mark.parametrize(
    ("then", "phase"), [(Undecided.PAUSE, Phase.PAUSED), (Undecided.ABORT, Phase.ABORTED)]
)
def test_what_stays_open_pauses_or_aborts_as_the_plan_says(then: Undecided, phase: Phase) -> None:
    release = Release(plan(STEP, on_inconclusive=then, max_wait_s=60.0)).start()
    release.run(69, UNSURE)
    assert release.phase == Phase.WAITING
    release.run(3, UNSURE)
    assert release.phase == phase
    assert "cannot be told yet" in release.progress.events[-1].text + release.progress.reason


def test_enough_requests_that_leave_it_open_end_the_wait_too() -> None:
    """At 10 requests a second, 300 are there after half a minute."""
    release = Release(plan(STEP, max_requests=300, max_wait_s=3_600.0), requests=10.0).start()
    release.run(28, UNSURE)
    assert release.phase == Phase.WAITING
    release.run(4, UNSURE)
    assert release.phase == Phase.PAUSED


def test_a_verdict_that_comes_in_time_is_no_reason_to_stop() -> None:
    release = Release(plan(STEP, on_inconclusive=Undecided.ABORT, max_wait_s=60.0)).start()
    release.run(40, UNSURE)
    release.tick(PASS)
    assert release.phase == Phase.DONE


def test_a_pause_is_told_again_ever_more_rarely() -> None:
    release = Release(plan(Step(1_000, 10.0), Step(None))).start()
    release.run(10)
    assert (release.phase, kinds(release).count("still paused")) == (Phase.PAUSED, 0)
    for _ in range(12 * 3_600 // 5):
        release.tick(passed_s=5.0)
    told = [event for event in release.progress.events if event.kind == "still paused"]
    assert [event.text.partition(":")[0] for event in told] == [
        "paused for 10 minutes",
        "paused for 20 minutes",
        "paused for 40 minutes",
        "paused for 80 minutes",
        "paused for 3 hours",
        "paused for 5 hours",
        "paused for 11 hours",
    ]
    assert "step 2 is a pause" in told[0].text
    for _ in range(5 * 86_400 // 5):
        release.tick(passed_s=5.0)
    assert 4 <= kinds(release).count("still paused") - len(told) <= 5, "once a day"


def test_the_wait_of_a_pause_is_shown_and_begins_at_nothing_with_the_next() -> None:
    release = Release(plan(Step(1_000, 600.0), Step(5_000, 600.0))).start()
    release.happen(Pause("jo"))
    release.run(300)
    table = a_table()
    assert describe(release.progress, table, table)["paused_s"] == pytest.approx(300, abs=6)
    release.happen(Resume())
    assert describe(release.progress, table, table)["paused_s"] == 0.0
    release.run(30)
    release.happen(Pause("jo"))
    release.run(30)
    assert describe(release.progress, table, table)["paused_s"] == pytest.approx(30, abs=6)


def test_a_pause_that_nobody_answers_still_ends_with_a_sick_canary() -> None:
    release = Release(plan(STEP, max_wait_s=60.0)).start()
    release.run(75, UNSURE)
    assert release.phase == Phase.PAUSED
    release.run(1_000, UNSURE)
    assert kinds(release)[-1] == "still paused"
    release.tick(FAIL)
    assert release.phase == Phase.ABORTED
    assert "surely more than allowed" in release.progress.reason
