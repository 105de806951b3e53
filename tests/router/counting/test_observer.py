"""What counts for which cohort, and how."""

from __future__ import annotations

import pytest

from router.choosing.choice import Choice
from router.counting.observer import Observer
from router.counting.tally import Answered, Outcome, Tally
from router.routing.table import Rule, SetEntry, Weights, key_hash
from router.wire.failure import Failure

SETS = {name: SetEntry(name, "h", 80) for name in ("a", "b")}
HALF = Weights(SETS, {"a": 5_000, "b": 5_000})


OK = Answered(Outcome.OK)


def observer(weights: Weights = HALF) -> Observer:
    made = Observer()
    made.watch(1, "b", weights)
    return made


def choice(home: str, chosen: str | None = None, weights: Weights | None = HALF) -> Choice:
    key = next(k for k in map(key_hash, (b"%d" % n for n in range(100))) if HALF.home(k) is SETS[home])
    return Choice(SETS[chosen or home], SETS[home], key, weights)


def counts(tally: Tally) -> tuple[int, int, int, int, int]:
    return tally.ok, tally.task_failed, tally.error, tally.shed, tally.client_left


def test_answers_count_for_their_cohort() -> None:
    seen = observer()
    seen.answered(choice("a"), SETS["a"], OK, 0.001)
    seen.answered(choice("b"), SETS["b"], Answered(Outcome.TASK_FAILED), 0.002)
    assert counts(seen.control) == (1, 0, 0, 0, 0)
    assert counts(seen.canary) == (0, 1, 0, 0, 0)
    assert seen.canary.measured == 1


def test_a_failure_at_home_counts_although_another_set_saved_the_request() -> None:
    seen = observer()
    asked = choice("b")
    seen.failed(asked, SETS["b"], Failure.RESET, 0.01)
    seen.answered(asked, SETS["a"], OK, 0.02)
    assert counts(seen.canary) == (0, 0, 1, 0, 0)
    assert counts(seen.control) == (0, 0, 0, 0, 0)


def test_a_second_failure_elsewhere_is_not_the_home_sets() -> None:
    seen = observer()
    asked = choice("b")
    seen.failed(asked, SETS["b"], Failure.RESET, 0.01)
    seen.failed(asked, SETS["a"], Failure.RESET, 0.02)
    seen.client_left(asked, SETS["a"], 0.03)
    assert counts(seen.canary) == (0, 0, 1, 0, 0)


def test_a_set_that_is_too_unwell_to_be_asked_counts_as_failing() -> None:
    seen = observer()
    seen.passed_over(choice("b", "a"), unwell=True)
    seen.answered(choice("b", "a"), SETS["a"], OK, 0.02)
    seen.passed_over(choice("b", "a"), unwell=False)
    assert counts(seen.canary) == (0, 0, 1, 1, 0)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure.CONNECT, (0, 0, 1, 0, 0)),
        (Failure.SEND, (0, 0, 1, 0, 0)),
        (Failure.RESET, (0, 0, 1, 0, 0)),
        (Failure.BAD_ANSWER, (0, 0, 1, 0, 0)),
        (Failure.TIMEOUT, (0, 0, 1, 0, 0)),
        (Failure.SILENT, (0, 0, 1, 0, 0)),
        (Failure.NO_ROOM, (0, 0, 0, 0, 0)),
        (Failure.BACK_PRESSURE, (0, 0, 0, 1, 0)),
        (Failure.STALE, (0, 0, 0, 0, 0)),
    ],
)
def test_back_pressure_is_no_failure_and_an_old_connection_nobodys(
    failure: Failure, expected: tuple[int, int, int, int, int]
) -> None:
    seen = observer()
    seen.failed(choice("b"), SETS["b"], failure, 0.01)
    assert counts(seen.canary) == expected


def test_only_what_the_default_weights_in_force_placed_counts() -> None:
    seen = observer()
    earlier = Weights(SETS, {"a": 5_000, "b": 5_000})
    rule = Rule("qa", HALF)
    ruled = choice("b")
    ruled.rule = rule
    for asked in (choice("b", weights=earlier), choice("b", weights=None), ruled):
        seen.answered(asked, SETS["b"], OK, 0.1)
        seen.failed(asked, SETS["b"], Failure.RESET, 0.1)
        seen.passed_over(asked, unwell=True)
        seen.client_left(asked, SETS["b"], 0.1)
    assert counts(seen.canary) == counts(seen.control) == (0, 0, 0, 0, 0)


def test_a_stint_begins_with_nothing_and_a_reload_within_it_keeps_what_was_seen() -> None:
    seen = observer()
    seen.answered(choice("b"), SETS["b"], OK, 0.001)
    again = Weights(SETS, {"a": 5_000, "b": 5_000})
    seen.watch(1, "b", again)
    assert seen.canary.ok == 1
    seen.answered(choice("b", weights=again), SETS["b"], OK, 0.001)
    assert seen.canary.ok == 2
    seen.watch(2, "b", again)
    assert seen.canary.ok == 0
    seen.rest()
    seen.answered(choice("b", weights=again), SETS["b"], OK, 0.001)
    assert (seen.watching, seen.canary.ok) == (False, 0)


def test_a_client_that_left_counts_with_the_time_it_waited() -> None:
    seen = observer()
    seen.client_left(choice("b"), SETS["b"], 30.0)
    assert counts(seen.canary) == (0, 0, 0, 0, 1)
    assert seen.canary.quantile_us(0.5) == pytest.approx(30e6, rel=0.03)


def waits(tally: Tally) -> list[float]:
    """How long requests have been open, in seconds, rounded."""
    return sorted(
        round(2 ** (bucket / 32) / 1e6) for bucket, count in tally.open.items() for _ in range(count)
    )


def test_requests_without_an_answer_count_with_their_age_until_they_end() -> None:
    seen = observer()
    hangs = seen.began(choice("b"), SETS["b"], 100.2)
    also = seen.began(choice("b"), SETS["b"], 100.9)
    other = seen.began(choice("a"), SETS["a"], 105.0)
    assert hangs is not None
    assert also is not None
    assert other is not None
    canary, control = seen.seen(111.0)
    assert (waits(canary), waits(control)) == ([10, 10], [5])
    assert seen.canary.open == {}, "kept apart, so that nothing counts twice"
    hangs.end()
    seen.client_left(choice("b"), SETS["b"], 11.0)
    canary, _ = seen.seen(112.0)
    assert (waits(canary), canary.overdue(5e6), canary.overdue(20e6)) == ([11], 2, 0)
    also.end()
    other.end()
    assert [each.open for each in seen.seen(120.0)] == [{}, {}]


def test_only_the_home_of_a_compared_request_waits_for_it() -> None:
    seen = observer()
    assert seen.began(choice("b", "a"), SETS["a"], 1.0) is None
    assert seen.began(choice("b", weights=None), SETS["b"], 1.0) is None


def test_what_is_open_at_a_change_of_weights_counts_no_longer() -> None:
    seen = observer()
    before = seen.began(choice("b"), SETS["b"], 1.0)
    again = Weights(SETS, {"a": 5_000, "b": 5_000})
    seen.watch(1, "b", again)
    assert seen.seen(9.0)[0].open == {}
    assert seen.began(choice("b", weights=again), SETS["b"], 1.5) is not None
    assert before is not None
    before.end()
    assert waits(seen.seen(9.0)[0]) == [7], "an end of earlier times takes nobody else away"


def test_a_client_that_left_within_its_answer_was_answered() -> None:
    seen = observer()
    seen.client_left(choice("b"), SETS["b"], 30.0, unanswered=False)
    seen.client_left(choice("b"), SETS["b"], 40.0)
    assert seen.canary.overdue(1e6) == 1
    assert seen.canary.answered_us(0.99) == pytest.approx(30e6, rel=0.03)
    assert seen.canary.measured == 2


@pytest.mark.parametrize("weight", [100, 500, 3_000, 5_000, 7_000, 9_900])
def test_all_that_the_weights_send_to_the_old_sets_is_control(weight: int) -> None:
    sets = {name: SetEntry(name, "h", 80) for name in ("a", "b", "c")}
    rest = 10_000 - weight
    weights = Weights(sets, {"a": rest * 6 // 10, "c": rest - rest * 6 // 10, "b": weight})
    seen = observer(weights)
    homes = dict.fromkeys(sets, 0)
    for key in map(key_hash, (b"user-%d" % number for number in range(2_000))):
        home = weights.home(key)
        assert home is not None
        homes[home.name] += 1
        seen.answered(Choice(home, home, key, weights), home, OK, 0.001)
    assert (seen.canary.ok, seen.control.ok) == (homes["b"], homes["a"] + homes["c"])


def test_a_canary_that_has_everything_has_no_control() -> None:
    weights = Weights(SETS, {"a": 0, "b": 10_000})
    seen = observer(weights)
    for key in map(key_hash, (b"user-%d" % number for number in range(50))):
        seen.answered(Choice(SETS["b"], SETS["b"], key, weights), SETS["b"], OK, 0.001)
    assert (seen.canary.ok, seen.control.ok) == (50, 0)
