"""Harm to one image, one account, or of one kind: found where there is enough traffic, and not found by chance."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from router.choosing.choice import Choice
from router.counting.observer import Observer
from router.counting.parts import ACCOUNTS, Parts
from router.counting.tally import Answered, Tally
from router.dialects.native import NativeDialect
from router.rollout.analysis import analyse
from router.rollout.checks import Verdict
from router.rollout.parts import worst_part
from router.routing.plan import AbortWhen, CheckName, PartName, Plan, Step
from router.routing.table import SetEntry, Weights
from router.wire.answer_head import parse_answer
from tests.router.counting.heads import head_of

SETS = {name: SetEntry(name, "h", 80) for name in ("a", "b")}
HALF = Weights(SETS, {"a": 5_000, "b": 5_000})
PLAN = Plan("b", (Step(500, 300.0), Step(2500, 300.0), Step(5000, 300.0)))
BY = (PartName.IMAGE, PartName.ACCOUNT)
Sick = Callable[[str, str, str], bool]


def answered(status: int = 200, reason: bytes | None = None) -> Answered:
    """How an answer with a task's id counts."""
    line = b"" if reason is None else b"X-Reason: %b\r\n" % reason
    head = parse_answer(b"HTTP/1.1 %d x\r\nX-Task-Id: a-1\r\n%b\r\n" % (status, line))
    counted = NativeDialect().outcome_of(head)
    assert counted is not None
    return counted


def played(
    sick: Sick,
    requests: int = 6_000,
    seed: int = 1,
    *,
    answer: Answered | None = None,
    base: float = 0.005,
    images: int = 30,
    users: int = 20_000,
    busy: float = 0.0,
) -> tuple[Tally, Tally]:
    """The tallies of half of the requests at each side. `sick(set, image, account)`: who gets `answer`, a 500. `base`:
    the share of all who get one anyway. `busy`: the share of one user who is always sick."""
    chance = random.Random(seed)
    seen = Observer()
    seen.watch(1, "b", HALF, BY)
    bad, good = answer or answered(500), answered()
    for _ in range(requests):
        is_busy = chance.random() < busy
        user = 0 if is_busy else chance.randrange(1, users)
        key = random.Random(user).getrandbits(64)
        home = HALF.home(key)
        assert home is not None
        image = f"image-{int(images * chance.random() ** 2)}:1"
        account = f"account-{user % 100}"
        choice = Choice(home, home, key, HALF)
        choice.head = head_of(f"10.{user % 250}.{user // 250}.1", image=image, account=account)
        fails = is_busy or sick(home.name, image, account) or chance.random() < base
        seen.answered(choice, home, bad if fails else good, 0.02)
    return seen.seen(0.0)


def nobody(*_: str) -> bool:
    return False


def image(*names: str) -> Sick:
    return lambda home, image, _: home == "b" and image in names


def test_an_image_that_fails_at_the_canary_is_found_and_named() -> None:
    # One of thirty: 3 % of the requests, so 1.6 points of all.
    canary, control = played(image("image-9:1"))
    found = analyse(PLAN, canary, control)
    assert found.verdict is Verdict.FAIL
    parts = next(check for check in found.checks if check.name is CheckName.PARTS)
    assert "error rate of image 'image-9:1', by callers 100.00% against" in parts.reason
    errors = next(check for check in found.checks if check.name is CheckName.ERRORS)
    assert errors.verdict is not Verdict.FAIL, "among all errors it cannot be seen"


def test_two_of_a_hundred_accounts_that_fail_are_found() -> None:
    sick = {"account-3", "account-44"}
    canary, control = played(lambda home, _, account: home == "b" and account in sick)
    harm = worst_part(canary, control, PLAN.abort_when, 0.05 / 15)
    assert harm is not None
    assert "error rate of account 'account-" in harm.what


def few_callers(sick: int, healthy: int, callers: int = 6) -> tuple[Tally, Tally]:
    """Tallies of accounts with so many callers on each side, which all fail at the canary where the account is sick."""
    sides = Parts(ACCOUNTS), Parts(ACCOUNTS)
    for number in range(sick + healthy):
        for key in range(callers):
            for side, parts in enumerate(sides):
                fails = number < sick and side == 0
                parts.note(f"account-{number}", number * 97 + key, error=fails, failed=False)
    return Tally(accounts=sides[0].table()), Tally(accounts=sides[1].table())


def test_several_accounts_of_which_none_is_sure_alone_are_found_together() -> None:
    alpha = 0.05 / 15
    assert worst_part(*few_callers(1, 60), PLAN.abort_when, alpha) is None
    assert worst_part(*few_callers(8, 60), PLAN.abort_when, alpha) is not None
    assert worst_part(*few_callers(0, 400), PLAN.abort_when, alpha) is None


def test_failed_tasks_of_one_image_are_found() -> None:
    canary, control = played(image("image-9:1"), answer=answered(422, b"exit"))
    harm = worst_part(canary, control, PLAN.abort_when, 0.05 / 15)
    assert harm is not None
    assert "failed tasks of image 'image-9:1'" in harm.what


@pytest.mark.parametrize(
    ("answer", "words"), [(answered(504), "timed out"), (answered(422, b"out_of_memory"), "out of memory")]
)
def test_tasks_that_time_out_or_have_no_memory_are_found(answer: Answered, words: str) -> None:
    """Here a fifth of all tasks fails anyway, by exit codes, in which some more time-outs disappear."""
    limits = AbortWhen(task_failures_over_baseline=0.02)
    canary, control = Tally(ok=2_400, task_failed=600), Tally(ok=2_400, task_failed=600)
    for tally, count in ((canary, 150), (control, 15)):
        setattr(tally, "timed_out" if answer.status == 504 else "out_of_memory", count)
    harm = worst_part(canary, control, limits, 0.05 / 15)
    assert harm is not None
    assert words in harm.what


def test_a_reason_is_counted_where_the_answer_tells_it() -> None:
    for answer, wanted in (
        (answered(504), (3, 0)),
        (answered(422, b"out_of_memory"), (0, 3)),
        (answered(422), (0, 0)),
    ):
        canary, _ = played(lambda home, *_: home == "b", 8, answer=answer, base=0.0)
        assert canary.task_failed >= 3
        told = canary.timed_out, canary.out_of_memory
        assert tuple(min(3, each) for each in told) == wanted


def test_a_platforms_failure_is_no_tasks() -> None:
    canary, _ = played(lambda home, *_: home == "b", 20, answer=answered(422, b"platform"), base=0.0)
    assert (canary.task_failed, canary.error > 5) == (0, True)


def test_what_fails_on_both_sides_is_no_harm() -> None:
    canary, control = played(lambda _, image, account: image == "image-9:1" or account == "account-3")
    assert worst_part(canary, control, PLAN.abort_when, 0.05 / 15) is None


def test_equal_sides_are_hardly_ever_told_apart() -> None:
    found = [
        worst_part(*played(nobody, 1_500, seed, base=0.05), PLAN.abort_when, 0.05 / 15) for seed in range(60)
    ]
    assert found.count(None) == len(found)


def test_one_busy_user_whose_every_request_fails_is_no_harm_to_an_image() -> None:
    """He lives at the canary, or at control; 5 % of the traffic, on every image."""
    homes = set()
    for seed in range(8):
        canary, control = played(nobody, 3_000, seed, busy=0.05, images=5)
        homes.add(canary.error > control.error)
        assert worst_part(canary, control, PLAN.abort_when, 0.05 / 15) is None


def test_a_limit_that_is_off_is_not_judged() -> None:
    canary, control = played(image("image-9:1"))
    limits = AbortWhen(error_rate_over_baseline=None)
    assert worst_part(canary, control, limits, 0.05 / 15) is None


def test_images_alone_are_told_apart_unless_the_file_asks_for_more() -> None:
    seen = Observer()
    seen.watch(1, "b", HALF)
    assert seen.seen(0.0)[0].accounts == {}
    assert Plan("b", ()).judge_by == (PartName.IMAGE,)
