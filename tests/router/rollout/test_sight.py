"""The requests that an operator is shown beside a verdict."""

from __future__ import annotations

import pytest

from router.counting.tally import Tally, bucket_of
from router.counting.witnesses import Kind, Witness
from router.rollout.analysis import Analysis
from router.rollout.checks import Check, Verdict
from router.rollout.sight import Open, Sight, sight_of
from router.rollout.world import World
from router.routing.plan import CheckName, Plan, Step


def one(kind: Kind, name: str) -> Witness:
    return Witness(kind, name, "b", "500", 1.0, "GET /x")


WITNESSES = tuple(one(kind, kind.value) for kind in Kind)


@pytest.mark.parametrize(
    ("fails", "shown"),
    [
        (CheckName.ERRORS, ["error", "open"]),
        (CheckName.TASKS, ["task"]),
        (CheckName.LATENCY, ["slow", "open"]),
        (CheckName.PARTS, ["error", "task"]),
        (None, ["error", "open", "task"]),
    ],
)
def test_they_speak_of_the_check_that_decides(fails: CheckName | None, shown: list[str]) -> None:
    checks = tuple(Check(name, Verdict.FAIL if name is fails else Verdict.PASS, "") for name in CheckName)
    found = sight_of(1, Analysis(Verdict.FAIL, "", checks), Tally(witnesses=WITNESSES), Tally())
    assert [each.id for each in found.witnesses] == shown


def test_what_only_reports_and_what_cannot_tell_come_after_what_fails() -> None:
    checks = (
        Check(CheckName.ERRORS, Verdict.FAIL, "", report_only=True),
        Check(CheckName.LATENCY, Verdict.INCONCLUSIVE, ""),
        Check(CheckName.TASKS, Verdict.FAIL, ""),
    )
    found = sight_of(1, Analysis(Verdict.FAIL, "", checks), Tally(witnesses=WITNESSES), Tally())
    assert [each.id for each in found.witnesses] == ["task"]
    found = sight_of(1, Analysis(Verdict.INCONCLUSIVE, "", checks[:2]), Tally(witnesses=WITNESSES), Tally())
    assert [each.id for each in found.witnesses] == ["slow", "open"]


def test_open_requests_are_counted_with_the_age_of_the_oldest() -> None:
    canary = Tally(open={bucket_of(2e6): 3, bucket_of(40e6): 1})
    found = sight_of(1, None, canary, Tally())
    assert found.canary.requests == 4
    assert found.canary.oldest_s == pytest.approx(40, rel=0.03)
    assert found.control == Open(0, None)


def test_every_turn_of_a_leader_shows_what_is_open_at_the_set_that_is_judged() -> None:
    plan = Plan("b", (Step(5_000, 60.0),))
    world = World(plan, {"a": 10_000, "b": 0}, rate=8.0)
    world.start()
    world.tempers["b"].hangs = True
    seen: list[Sight | None] = []
    while world.progress.running and len(seen) < 50:
        world.tick()
        seen.append(world.progress.sight)
    shown = [sight for sight in seen if sight is not None]
    assert {sight.run for sight in shown} == {world.progress.run}
    assert max(sight.canary.requests for sight in shown) > max(sight.control.requests for sight in shown)
    assert world.progress.sight is shown[-1], "what an abort was decided by stays"
