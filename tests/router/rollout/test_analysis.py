"""Verdicts: what was seen in, three verdicts with their reasons out."""

from __future__ import annotations

import random
from math import log

import msgspec
import pytest

from router.counting.tally import Outcome, Tally, bucket_of, minus, total
from router.rollout.analysis import Analysis, analyse
from router.rollout.checks import Check, Verdict
from router.rollout.look import Look, Window
from router.routing.plan import AbortWhen, CheckName, Plan, Step

PLAN = Plan("b", (Step(100, 600.0), Step(1_000, 600.0)))


def tally(
    ok: int = 0,
    task_failed: int = 0,
    error: int = 0,
    shed: int = 0,
    left: int = 0,
    *,
    median_us: float = 20_000.0,
    left_after_us: float = 0.0,
    seed: int = 1,
) -> Tally:
    rng = random.Random(seed)
    seen = Tally()
    for outcome, count in (
        (Outcome.OK, ok),
        (Outcome.TASK_FAILED, task_failed),
        (Outcome.ERROR, error),
        (Outcome.SHED, shed),
        (Outcome.LEFT, left),
    ):
        for _ in range(count):
            if outcome in (Outcome.OK, Outcome.TASK_FAILED):
                seen.note(outcome, rng.lognormvariate(log(median_us), 0.4))
            elif outcome is Outcome.LEFT:
                seen.note(outcome, left_after_us)
            else:
                seen.note(outcome)
    return seen


def check(analysis: Analysis, name: CheckName) -> Check:
    return next(check for check in analysis.checks if check.name is name)


def test_nothing_seen_is_inconclusive() -> None:
    found = analyse(PLAN, Tally(), Tally())
    assert found.verdict is Verdict.INCONCLUSIVE
    assert not found.enough
    assert "requests of the canary: 0; min_requests asks for 100" in found.reason


def test_few_requests_do_not_pass_however_well_they_end() -> None:
    assert analyse(PLAN, tally(99), tally(500)).verdict is Verdict.INCONCLUSIVE
    found = analyse(PLAN, tally(500), tally(99))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "of the control: 99;" in found.reason


def test_few_requests_fail_where_all_of_them_go_wrong() -> None:
    """`min_requests` holds back a pass: a canary that fails every request does not get a hundred first."""
    assert analyse(PLAN, tally(error=3), tally(3)).verdict is Verdict.INCONCLUSIVE
    found = analyse(PLAN, tally(error=12), tally(12))
    assert found.verdict is Verdict.FAIL
    assert not found.enough
    assert found.reason.startswith("error rate 100.00% against 0.00%")
    # The same share of a few says nothing yet.
    assert analyse(PLAN, tally(12, error=2), tally(14)).verdict is Verdict.INCONCLUSIVE


def hanging(seen: Tally, count: int, waited_s: float) -> Tally:
    """The same with requests that are open for so long."""
    seen.open = {bucket_of(waited_s * 1e6): count}
    return seen


def test_requests_that_are_open_too_long_count_as_errors() -> None:
    found = analyse(PLAN, hanging(tally(0), 12, 5.0), tally(12))
    assert found.verdict is Verdict.FAIL
    assert found.reason.startswith("error rate (12 without an answer after 2 s) 100.00% against 0.00%")
    assert found.canary_requests == 12


def test_requests_that_are_open_as_long_as_control_takes_are_no_errors() -> None:
    canary, control = tally(100, median_us=30e6), tally(120, seed=2, median_us=30e6)
    found = analyse(PLAN, hanging(canary, 20, 40.0), control)
    assert check(found, CheckName.ERRORS).canary == 0.0
    assert found.verdict is not Verdict.FAIL


def test_a_twentieth_that_stays_open_is_never_promoted() -> None:
    for requests in (100, 300, 1_000, 5_000):
        found = analyse(
            PLAN, hanging(tally(requests * 95 // 100), requests // 20, 60.0), tally(requests, seed=2)
        )
        assert found.verdict is not Verdict.PASS
    assert found.verdict is Verdict.FAIL


def test_as_many_open_at_control_are_no_harm_of_the_canary() -> None:
    """They do not make control so slow that nothing counts as late, either."""
    control = hanging(tally(980, seed=2), 20, 60.0)
    assert analyse(PLAN, hanging(tally(980), 20, 60.0), control).verdict is Verdict.PASS
    assert analyse(PLAN, hanging(tally(500), 500, 60.0), control).verdict is Verdict.FAIL


def test_a_window_judges_what_is_open_now() -> None:
    whole, before = hanging(tally(50), 7, 60.0), hanging(tally(30), 3, 5.0)
    assert minus(whole, before).open == whole.open
    assert total([whole, whole]).overdue(2e6) == 14


def test_latency_is_judged_by_what_came_after_settling() -> None:
    cold = total([tally(200, seed=1), tally(100, median_us=10e6)])
    assert analyse(PLAN, cold, tally(300, seed=2)).verdict is Verdict.FAIL
    warm = tally(200, seed=1), tally(200, seed=2)
    assert analyse(PLAN, cold, tally(300, seed=2), Look(warm=warm)).verdict is Verdict.PASS
    assert (
        analyse(PLAN, cold, tally(300, seed=2), Look(warm=(Tally(), Tally()))).verdict is Verdict.INCONCLUSIVE
    )


def test_latency_is_not_compared_with_an_earlier_hour() -> None:
    found = analyse(PLAN, tally(300, median_us=30_000.0), tally(300, seed=2), elsewhen=True)
    assert found.verdict is Verdict.PASS
    assert "not judged at 100 %" in check(found, CheckName.LATENCY).reason
    assert analyse(PLAN, tally(200, error=100), tally(300), elsewhen=True).verdict is Verdict.FAIL


def test_equal_sets_pass_from_min_requests_on() -> None:
    found = analyse(PLAN, tally(112, seed=1), tally(112, seed=2))
    assert (found.verdict, found.enough) == (Verdict.PASS, True)
    assert "nothing speaks against it" in check(found, CheckName.ERRORS).reason


def test_a_latency_without_any_bound_is_no_pass() -> None:
    """With few requests and a smaller `min_requests`, "nothing speaks against it" could be said without any
    evidence."""
    few = msgspec.structs.replace(PLAN, abort_when=AbortWhen(min_requests=20))
    for count in (20, 65, 111):
        latency = check(analyse(few, tally(count, seed=1), tally(count, seed=2)), CheckName.LATENCY)
        assert (latency.verdict, latency.high) == (Verdict.INCONCLUSIVE, None)
        assert "no bound yet" in latency.reason
    latency = check(analyse(few, tally(112, seed=1), tally(112, seed=2)), CheckName.LATENCY)
    assert latency.verdict is Verdict.PASS
    assert latency.high is not None


def ended(tally: Tally, ok: int, failed: int) -> Tally:
    tally.async_ok, tally.async_failed = ok, failed
    return tally


def test_asynchronous_tasks_are_judged_by_a_check_of_their_own() -> None:
    sick, well = ended(tally(200, seed=1), 60, 60), ended(tally(200, seed=2), 5_000, 50)
    found = analyse(PLAN, sick, well)
    assert found.verdict is Verdict.FAIL
    assert found.reason.startswith("share of failed asynchronous tasks 50.00% against 0.99%")
    assert check(found, CheckName.TASKS).verdict is Verdict.PASS
    # As often failed at both, if far more at the old sets: nothing to see.
    assert (
        analyse(PLAN, ended(tally(200), 80, 40), ended(tally(200), 4_000, 2_000)).verdict is not Verdict.FAIL
    )
    off = Plan("b", PLAN.steps, AbortWhen(async_failures_over_baseline=None))
    assert analyse(off, sick, well).verdict is Verdict.PASS


@pytest.mark.parametrize(("canary", "control"), [((0, 0), (0, 0)), ((0, 99), (500, 0)), ((0, 500), (99, 0))])
def test_too_few_asynchronous_tasks_hold_nothing_up(
    canary: tuple[int, int], control: tuple[int, int]
) -> None:
    found = analyse(PLAN, ended(tally(200, seed=1), *canary), ended(tally(200, seed=2), *control))
    assert found.verdict is Verdict.PASS
    assert "not judged below 100" in check(found, CheckName.ASYNC).reason


def test_asynchronous_tasks_of_a_window_are_those_since_its_begin() -> None:
    whole, before = ended(tally(5), 70, 9), ended(tally(3), 50, 4)
    assert (minus(whole, before).async_ok, minus(whole, before).async_failed) == (20, 5)
    assert total([whole, before]).async_ended == 133


def test_proof_is_told_from_the_lack_of_suspicion() -> None:
    found = analyse(PLAN, tally(500, seed=1), tally(500, seed=2))
    errors = check(found, CheckName.ERRORS)
    assert (
        errors.reason
        == (
            "error rate 0.00% against 0.00%: +0.00 points (between -1.97 points and +1.33 points), "
            "allowed +2.00 points: surely within"
        )
        or "surely within" in errors.reason
    )
    assert errors.low is not None
    assert errors.high is not None
    assert errors.threshold is not None
    assert errors.low <= 0.0 <= errors.high <= errors.threshold == 0.02


@pytest.mark.parametrize(
    ("canary", "name", "says"),
    [
        (tally(60, error=60), CheckName.ERRORS, "error rate 50.00% against 0.00%"),
        (tally(60, task_failed=60), CheckName.TASKS, "share of failed tasks 50.00% against 0.00%"),
        (tally(300, median_us=200_000.0), CheckName.LATENCY, "95th percentile of latency"),
    ],
)
def test_each_check_can_fail_and_says_why(canary: Tally, name: CheckName, says: str) -> None:
    found = analyse(PLAN, canary, tally(300, seed=2))
    assert found.verdict is Verdict.FAIL
    failed = check(found, name)
    assert failed.verdict is Verdict.FAIL
    assert found.reason == failed.reason
    assert failed.reason.startswith(says)
    assert failed.reason.endswith("surely more than allowed")
    assert failed.low is not None
    assert failed.threshold is not None
    assert failed.low > failed.threshold


def test_somewhat_worse_is_inconclusive() -> None:
    found = analyse(PLAN, tally(94, error=6), tally(99, error=1))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.enough
    assert "cannot be told yet" in found.reason


def test_a_canary_that_hangs_until_its_clients_leave_fails() -> None:
    """No answer, no error: only the time that clients waited tells."""
    found = analyse(PLAN, tally(left=300, left_after_us=30e6), tally(300))
    assert found.verdict is Verdict.FAIL
    assert check(found, CheckName.LATENCY).verdict is Verdict.FAIL


def test_a_canary_that_is_always_full_does_not_pass_and_does_not_fail() -> None:
    found = analyse(PLAN, tally(shed=500), tally(500))
    assert found.verdict is Verdict.INCONCLUSIVE
    found = analyse(PLAN, tally(300, shed=200), tally(500))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "make room" in found.reason


def test_a_better_canary_passes() -> None:
    assert analyse(PLAN, tally(300, median_us=10_000.0), tally(250, error=50)).verdict is Verdict.PASS


def test_a_check_that_only_reports_decides_nothing() -> None:
    plan = Plan("b", PLAN.steps, report_only=(CheckName.ERRORS,))
    found = analyse(plan, tally(150, error=150), tally(300, seed=2))
    assert found.verdict is Verdict.PASS
    assert check(found, CheckName.ERRORS).verdict is Verdict.FAIL
    assert check(found, CheckName.ERRORS).report_only


def test_a_check_that_is_off_is_not_judged_yet_silence_is_no_pass() -> None:
    plan = Plan("b", PLAN.steps, AbortWhen(100, None, None, None))
    assert analyse(plan, tally(150, error=150), tally(300)).verdict is Verdict.PASS
    assert analyse(plan, tally(50), tally(300)).verdict is Verdict.INCONCLUSIVE


def test_a_whole_release_of_equal_sets_is_hardly_ever_aborted() -> None:
    """Errors of 2 % and failed tasks of 20 % on both sides, looked at every 50 requests: 40 releases of 1,000."""
    aborted = 0
    for seed in range(40):
        rng = random.Random(seed)
        sides = Tally(), Tally()
        for number in range(1, 1_001):
            for side in sides:
                chance = rng.random()
                if chance < 0.02:
                    side.note(Outcome.ERROR)
                else:
                    outcome = Outcome.TASK_FAILED if chance < 0.216 else Outcome.OK
                    side.note(outcome, rng.lognormvariate(10.0, 1.0))
            if number % 50 == 0 and analyse(PLAN, *sides).verdict is Verdict.FAIL:
                aborted += 1
                break
    assert aborted <= 2


def test_a_canary_that_sickens_late_is_found_by_what_was_seen_lately() -> None:
    """Three thousand good answers must not hide eighty bad ones in a row."""
    before, base = tally(3_000), tally(3_000, seed=2)
    canary, control = total([before, tally(40, error=80)]), total([base, tally(120, seed=3)])
    assert analyse(PLAN, canary, control).verdict is not Verdict.FAIL
    window = Window(minus(canary, before), minus(control, base), 7)
    found = analyse(PLAN, canary, control, Look(window))
    assert found.verdict is Verdict.FAIL
    assert found.reason.startswith("lately, error rate 66.67% against 0.00%")


def test_tallies_of_workers_add_up() -> None:
    whole = total([tally(10, 2, 3, 4, 5), tally(20), Tally()])
    assert (whole.ok, whole.task_failed, whole.error, whole.shed, whole.client_left) == (30, 2, 3, 4, 5)
    assert (whole.answered, whole.judged, whole.requests, whole.measured) == (32, 35, 44, 37)
