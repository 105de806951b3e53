"""How long it takes until a verdict is certain: what the operator is told of a check that cannot tell yet."""

from __future__ import annotations

import random
import re
from math import log

import pytest

from router.counting.tally import Outcome, Tally
from router.rollout.analysis import Analysis, analyse
from router.rollout.certainty import telling
from router.rollout.checks import Verdict
from router.rollout.look import Look
from router.routing.plan import AbortWhen, Plan, Step

PLAN = Plan("b", (Step(500, 300.0), Step(5_000, 300.0)))
STRICT = Plan("b", PLAN.steps, AbortWhen(error_rate_over_baseline=0.005))
SEEN_S = 600.0


def tally(ok: int, error: int = 0) -> Tally:
    rng = random.Random(ok)
    seen = Tally()
    for outcome, count in ((Outcome.OK, ok), (Outcome.ERROR, error)):
        for _ in range(count):
            seen.note(outcome, rng.lognormvariate(log(20_000.0), 0.4))
    return seen


def told(plan: Plan, canary: Tally, control: Tally) -> Analysis:
    found = analyse(plan, canary, control, step=0)
    after = telling(plan, found, canary, control, Look(), 0, SEEN_S)
    assert after.verdict is found.verdict
    assert after.reason.startswith(found.reason)
    return after


def minutes(reason: str, verdict: str) -> int:
    found = re.search(rf"at this traffic it would {verdict} in about (\d+) minutes$", reason)
    assert found is not None, reason
    return int(found[1])


def test_harm_that_is_nearly_sure_is_told_to_fail_soon() -> None:
    near = minutes(told(PLAN, tally(572, 28), tally(11_340, 60)).reason, "fail")
    far = minutes(told(PLAN, tally(576, 24), tally(11_340, 60)).reason, "fail")
    assert 1 <= near < far <= 60


def test_a_canary_within_a_narrow_margin_is_told_to_pass_late() -> None:
    assert minutes(told(STRICT, tally(595, 5), tally(11_340, 60)).reason, "pass") >= 10


def test_where_the_harm_is_just_the_margin_a_day_would_not_tell() -> None:
    strict = Plan("b", PLAN.steps, AbortWhen(error_rate_over_baseline=0.001))
    assert re.search(
        r"at this traffic (8 hours would not be enough to tell|it would (fail|pass) in about \d hours)$",
        told(strict, tally(1_988, 14), tally(37_800, 200)).reason,
    )


@pytest.mark.parametrize(
    ("canary", "control", "verdict"),
    [
        (tally(40), tally(11_340), Verdict.INCONCLUSIVE),
        (tally(600), tally(11_340), Verdict.PASS),
        (tally(200, 200), tally(11_340), Verdict.FAIL),
    ],
)
def test_without_requests_enough_or_with_a_verdict_there_is_nothing_to_add(
    canary: Tally, control: Tally, verdict: Verdict
) -> None:
    found = analyse(PLAN, canary, control, step=0)
    assert found.verdict is verdict
    assert telling(PLAN, found, canary, control, Look(), 0, SEEN_S) is found
