"""What a start would do, told before it: the same as it then does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from router.config.reader import load
from router.counting.parts import IMAGES, Parts
from router.counting.tally import Tally, bucket_of
from router.rollout import rates
from router.rollout.analysis import analyse, check_alpha
from router.rollout.checks import ALPHA_PASS, Verdict
from router.rollout.eprocess import Counts, EProcess
from router.rollout.look import Look
from router.rollout.orders import in_force, starting
from router.rollout.parts import worst_part
from router.rollout.preview import preview
from router.rollout.progress import advance
from router.rollout.record import Abort, Progress
from router.routing.plan import AbortWhen, CheckName, Plan, Step
from router.routing.table import SetState, Table

NOW = 1e9
FILE = """
version: 1
sets: {a: {url: "http://h:1"}, b: {url: "http://h:2", state: %s}, c: {url: "http://h:3"}}
default: {weights: {a: 80, b: %d, c: %d}}
rollout:
  set: b
  steps: [{weight: 1, hold: 10m}, {weight: 10, hold: 30m, gate: "http://g/"}, {pause: true},
          {weight: 50, hold: 1h}, {weight: 100}]
%s
"""


def table(more: str = "", *, b: int = 0, state: SetState = SetState.READY) -> Table:
    return load((FILE % (state, b, 20 - b, more)).encode()).table


def ahead(file: Table, per_s: float = 20.0, progress: Progress | None = None) -> dict[str, Any]:
    found = preview(file, file, progress or Progress(), NOW, per_s)
    assert found is not None
    return found


def test_steps_are_told_with_their_weights_and_requests() -> None:
    told = ahead(table())
    assert told["stable"] == ["a", "c"]
    assert [step.get("effective") for step in told["steps"]] == [
        {"a": 79.2, "b": 1.0, "c": 19.8},
        {"a": 72.0, "b": 10.0, "c": 18.0},
        None,
        {"a": 40.0, "b": 50.0, "c": 10.0},
        {"a": 0.0, "b": 100.0, "c": 0.0},
    ]
    assert [step.get("compared_per_s") for step in told["steps"]] == [0.2, 2.0, None, 10.0, 20.0]
    assert [step.get("enough_s") for step in told["steps"]] == [560.0, 56.0, None, 11.2, 5.6]
    assert [step.get("about_s") for step in told["steps"]] == [600.0, 1800.0, None, 3600.0, 0.0]
    assert (told["about_s"], told["hold_s"], told["pauses"], told["gates"]) == (6000.0, 6000.0, 1, 1)


@pytest.mark.parametrize(
    ("b", "lowers"),
    [
        (0, None),
        (1, None),
        (5, {"from": 5.0, "to": 1.0, "glides": False}),
        (20, {"from": 20.0, "to": 1.0, "glides": False}),
    ],
)
def test_a_start_that_takes_weight_away_says_so(b: int, lowers: dict[str, Any] | None) -> None:
    assert ahead(table(b=b))["lowers"] == lowers


def test_a_start_that_takes_much_away_says_that_it_glides() -> None:
    file = load((FILE % ("ready", 20, 0, "")).replace("a: 80, b: 20", "a: 30, b: 70").encode()).table
    assert ahead(file)["lowers"] == {"from": 70.0, "to": 1.0, "glides": True}
    after = advance(Progress(), starting(file, Progress()), NOW)[0]
    assert 100 < after.weight < 7_000
    assert file.rollout is not None
    dry = replace(file, rollout=msgspec.structs.replace(file.rollout, dry_run=True))
    assert ahead(dry)["lowers"] is None


def test_a_step_that_would_lack_requests_is_told() -> None:
    told = ahead(table(), per_s=4.0)
    # 0.04 a second: 100 after 2,500 s, which is more than the hold and as much again.
    assert [step.get("starves") for step in told["steps"]] == [True, False, None, False, False]
    assert told["about_s"] is None, "it stops at the first step, so all steps together have no time"
    told = ahead(table("  max_wait: 2h"), per_s=4.0)
    assert not any(step.get("starves") for step in told["steps"])
    assert told["steps"][0]["about_s"] == 2800.0
    assert told["about_s"] == 2800.0 + 1800.0 + 3600.0
    told = ahead(table(), per_s=0.0)
    assert told["about_s"] is None
    assert told["steps"][0]["enough_s"] is None


def test_a_dry_run_leaves_the_weights_and_counts_by_them() -> None:
    told = ahead(table("  dry_run: true", b=5))
    assert told["dry_run"]
    assert {tuple(step["effective"].values()) for step in told["steps"] if not step["pause"]} == {
        (80.0, 5.0, 15.0)
    }
    assert {step["compared_per_s"] for step in told["steps"] if not step["pause"]} == {1.0}


def test_so_many_callers_of_one_image_do_fail_it_and_one_less_does_not() -> None:
    told = ahead(table())["checks"]
    fails = next(check["fails_after"] for check in told if check["name"] == "parts")

    def images(callers: int, *, error: bool) -> Tally:
        parts = Parts(IMAGES)
        for key in range(callers):
            parts.note("ocr:1", key, error=error, failed=False)
        return Tally(images=parts.table())

    plan = table().rollout
    assert plan is not None
    harm = [
        worst_part(images(n, error=True), images(n, error=False), plan.abort_when, check_alpha(plan))
        for n in (fails, fails - 1)
    ]
    assert [each is not None for each in harm] == [True, False]


def test_what_the_margins_let_through_is_told() -> None:
    assert ahead(table())["let_through"] == [
        "up to 2 points more errors than control",
        "up to 5 points more failed tasks than control",
        "up to 5 points more failed asynchronous tasks than control",
        "a 95th percentile of latency up to 25 % above control's",
    ]
    more = "  abort_when: {error_rate_over_baseline: 0.5%, p95_over_baseline: off}\n  dry_run: [errors]"
    assert ahead(table(more))["let_through"][::3] == [
        "up to 0.5 points more errors than control, and more, as this check only reports",
        "a 95th percentile of latency: any, as the limit is off",
    ]


def test_at_one_request_a_second_it_says_how_long_each_step_needs() -> None:
    told = ahead(table(), per_s=1.0)
    fails = told["checks"][0]["fails_after"]
    steps = [step for step in told["steps"] if not step["pause"]]
    assert [step["sick_s"] for step in steps] == [fails * 100, fails * 10, fails * 2, fails]
    assert steps[0]["enough_s"] == 11_200.0
    assert steps[0]["starves"]
    assert [step["sick_s"] for step in ahead(table(), per_s=0.0)["steps"] if not step["pause"]] == [None] * 4
    off = table("  abort_when: {error_rate_over_baseline: off}")
    assert ahead(off)["steps"][0]["sick_s"] is None


def test_what_a_start_would_refuse_is_told() -> None:
    assert "takes no new work" in ahead(table(state=SetState.DRAIN))["refused"]
    assert ahead(table())["refused"] is None


def test_while_a_rollout_is_under_way_and_without_a_plan_there_is_none() -> None:
    file = table()
    progress, _ = advance(Progress(), starting(file, Progress()), NOW)
    assert preview(file, in_force(file, progress), progress, NOW, 1.0) is None
    assert preview(replace(file, rollout=None), file, Progress(), NOW, 1.0) is None


def test_a_return_is_told() -> None:
    file = table("  return_window: 1h", b=0)
    progress, _ = advance(Progress(), starting(file, Progress()), NOW)
    progress.carriers = {**progress.carriers, "b": replace_share(progress)}
    progress, _ = advance(progress, Abort(at_once=True), NOW)
    assert ahead(file, progress=progress)["returning"]
    assert not ahead(table(), progress=progress)["returning"]


def replace_share(progress: Progress) -> Any:
    known = progress.carriers["a"]
    return type(known)(10_000, NOW - 60, progress.urls["b"])


def tally(ok: int = 0, error: int = 0, latency_us: float = 20_000.0) -> Tally:
    return Tally(ok=ok, error=error, latencies={bucket_of(latency_us): ok + error})


@pytest.mark.parametrize("limit", [0.005, 0.02, 0.2])
@pytest.mark.parametrize("least", [1, 100])
def test_so_many_requests_do_fail_a_canary_and_one_less_does_not(limit: float, least: int) -> None:
    plan = Plan("b", (Step(100, 60.0), Step(5000, 60.0)), AbortWhen(least, limit, None, 0.25))
    told = {check["name"]: check for check in ahead(replace(table(), rollout=plan))["checks"]}
    assert told["tasks"] == {
        "name": "tasks", "aborts": False, "threshold": None, "unit": "points", "fails_after": None,
        "proves_after": None,
    }  # fmt: skip

    def verdict(check: CheckName, canary: Tally, control: Tally) -> Verdict:
        counts = Counts(canary.error, canary.judged, control.error, control.judged)
        look = Look(proof={CheckName.ERRORS: EProcess(limit).evidence(counts)})
        return next(c.verdict for c in analyse(plan, canary, control, look).checks if c.name is check)

    errors = told["errors"]["fails_after"]
    assert verdict(CheckName.ERRORS, tally(error=errors), tally(errors)) is Verdict.FAIL
    assert verdict(CheckName.ERRORS, tally(error=errors - 1), tally(errors - 1)) is not Verdict.FAIL
    slow = told["latency"]["fails_after"]
    late = 2.55 * 20_000.0
    assert verdict(CheckName.LATENCY, tally(slow, latency_us=late), tally(slow)) is Verdict.FAIL
    proven = told["errors"]["proves_after"]
    alpha = check_alpha(plan) / 2
    high = rates.difference(0, proven, 0, proven, alpha_low=alpha, alpha_high=ALPHA_PASS).high
    assert high <= limit


def test_reporting_checks_never_decide_and_what_cannot_be_met_is_never() -> None:
    file = table("  dry_run: [errors]\n  abort_when: {error_rate_over_baseline: 100%, min_requests: 7}")
    told = {check["name"]: check for check in ahead(file)["checks"]}
    assert (told["errors"]["aborts"], told["errors"]["fails_after"]) == (False, None)
    assert told["tasks"]["aborts"]
