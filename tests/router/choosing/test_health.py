"""Health as conversations: results and times go in, who may be chosen comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.choosing.health import Blame, HealthBoard, blame_for
from router.routing.policies import EJECT_AFTER_FAILURES, HealthPolicy
from router.wire.failure import Failure

SETS = ("a", "b")


def board(fall: int = 3, rise: int = 2) -> HealthBoard:
    made = HealthBoard(HealthPolicy(fall=fall, rise=rise))
    made.adopt(SETS, made.policy)
    return made


def fail(made: HealthBoard, name: str, now: float, times: int = EJECT_AFTER_FAILURES) -> None:
    for _ in range(times):
        made.failed(name, now)


def fail_refused(made: HealthBoard, name: str, now: float, times: int = EJECT_AFTER_FAILURES) -> None:
    for _ in range(times):
        made.failed(name, now, refused=True)


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("failure", list(Failure))
def test_what_a_failure_says_against_its_set(failure: Failure, reused: bool) -> None:
    blames = {
        Failure.CONNECT: Blame.REFUSED,
        Failure.NO_ROOM: None,
        Failure.SEND: None if reused else Blame.LOST,
        Failure.STALE: None,
        Failure.RESET: Blame.LOST,
        Failure.BACK_PRESSURE: None,
        Failure.BAD_ANSWER: Blame.BAD,
        Failure.TIMEOUT: None,
        Failure.SILENT: Blame.BAD,
    }
    assert blame_for(failure, reused=reused) is blames[failure]


def test_checks_take_a_set_down_after_fall_and_up_after_rise() -> None:
    made = board()
    assert [made.probe_failed("a", t) for t in (0, 2, 4)] == [False, False, True]
    assert made.usable(SETS, 5) == {"b"}
    assert [made.probe_ok("a", t) for t in (6, 8)] == [False, True]
    assert made.usable(SETS, 9) == {"a", "b"}


def test_one_good_check_between_bad_ones_starts_the_count_anew() -> None:
    made = board()
    for _ in range(5):
        made.probe_failed("a", 0)
        made.probe_failed("a", 0)
        made.probe_ok("a", 0)
    assert made.usable(SETS, 0) == {"a", "b"}


def test_a_refused_connection_is_enough_until_something_succeeds() -> None:
    made = board()
    made.failed("a", 0, refused=True)
    assert made.usable(SETS, 0) == {"b"}
    assert made.next_probe_s("a") < made.next_probe_s("b")
    made.probe_ok("a", 1)
    assert made.usable(SETS, 1) == {"a", "b"}


def test_ejections_last_longer_each_time_up_to_five_minutes() -> None:
    made = board()
    now = 0.0
    lengths = []
    for _ in range(13):
        fail(made, "a", now)
        assert made.usable(SETS, now) == {"b"}
        lengths.append(made.of("a").ejected_until - now)
        now = made.of("a").ejected_until
        assert made.usable(SETS, now) == {"a", "b"}
    assert lengths == [min(300.0, 30.0 * n) for n in range(1, 14)]


def test_a_success_between_failures_prevents_an_ejection() -> None:
    made = board()
    for _ in range(10):
        fail(made, "a", 0, EJECT_AFTER_FAILURES - 1)
        made.succeeded("a")
    assert made.usable(SETS, 0) == {"a", "b"}


def test_panic_when_all_were_ejected_by_passive_checks_alone() -> None:
    made = board()
    fail(made, "a", 0)
    fail(made, "b", 0)
    assert made.usable(SETS, 1) == {"a", "b"}


def test_a_dead_set_is_not_chosen_in_panic_while_another_is_alive() -> None:
    made = board()
    made.failed("a", 0, refused=True)
    fail(made, "b", 0)
    assert made.usable(SETS, 1) == {"b"}


def test_with_all_dead_there_is_only_the_last_resort() -> None:
    made = board()
    for name in SETS:
        made.failed(name, 0, refused=True)
    assert made.usable(SETS, 1) == {"a", "b"}
    assert made.usable(SETS, 1, last_resort=False) == frozenset()


def test_a_new_table_keeps_what_is_known() -> None:
    made = board()
    made.failed("a", 0, refused=True)
    made.adopt(("a", "c"), HealthPolicy())
    assert made.usable(("a", "c"), 0) == {"c"}
    made.forget("a")
    assert made.usable(("a", "c"), 0) == {"a", "c"}


def test_a_set_that_returns_has_a_part_that_grows() -> None:
    made = board()
    assert made.part("a", 0) == 1.0
    made.probe_ok("a", 0)
    made.probe_failed("a", 10, refused=True)
    assert (made.part("a", 10), made.word("a", 10)) == (0.0, "refused")
    made.probe_ok("a", 20)
    parts = [made.part("a", 20 + second) for second in range(11)]
    assert parts[0] == 0.1
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert made.word("a", 25) == "slow start"
    assert made.word("a", 30) == "up"


def test_a_set_that_starts_with_its_router_has_all_of_its_part_at_once() -> None:
    made = board()
    made.probe_failed("a", 10, refused=True)
    assert made.part("a", 10) == 0.0
    made.probe_ok("a", 11)
    assert made.part("a", 11) == 1.0
    made.probe_failed("a", 20, refused=True)
    made.probe_ok("a", 21)
    assert made.part("a", 21) == 0.1


def test_a_success_of_a_request_brings_a_set_back_as_slowly() -> None:
    made = board()
    made.failed("a", 100, refused=True)
    made.succeeded("a")
    assert made.part("a", 100) == 0.1
    assert made.part("a", 110) == 1.0


def test_an_ejection_in_a_slow_start_begins_another() -> None:
    made = board()
    made.probe_failed("a", 0, refused=True)
    made.probe_ok("a", 1)
    fail(made, "a", 5)
    assert made.part("a", 20) == 0.0
    assert made.part("a", 35) == 0.1
    assert made.part("a", 45) == 1.0


def test_the_generation_grows_whenever_the_answer_may_be_another() -> None:
    made = board()
    seen = {made.refresh(0.0)}
    now = 0.0
    made.probe_failed("a", now, refused=True)
    assert made.refresh(now) not in seen
    made.probe_ok("a", now)
    answers: dict[int, float] = {}
    while now < 15:
        generation = made.refresh(now)
        part = made.part("a", now)
        # Between two refreshes of one generation a part is at most a step old.
        assert abs(answers.setdefault(generation, part) - part) <= 0.1 + 1e-9
        now += 0.1
    assert answers[made.refresh(now)] == 1.0
    generation = made.refresh(now)
    assert made.refresh(now + 1000) == generation


def test_a_restart_leaves_no_ejection_once_the_checks_succeed() -> None:
    made = board(rise=2)
    for _ in range(2):
        made.failed("a", 10, lost=True)
    fail_refused(made, "a", 10.1)
    assert made.of("a").ejected(11)
    made.probe_ok("a", 11)
    assert made.part("a", 11) == 0.0
    assert made.probe_ok("a", 12)
    assert (made.part("a", 12), made.word("a", 12)) == (0.1, "slow start")
    assert made.part("a", 22) == 1.0


def test_restarts_do_not_lengthen_a_later_ejection() -> None:
    made = board(rise=1)
    for now in (0, 100, 200):
        fail_refused(made, "a", now)
        made.probe_ok("a", now + 1)
    fail(made, "a", 300)
    assert made.of("a").ejected_until == 330


def test_a_refusal_found_after_the_ejection_tells_of_a_restart_too() -> None:
    made = board(rise=1)
    for _ in range(EJECT_AFTER_FAILURES):
        made.failed("a", 10, lost=True)
    made.probe_failed("a", 10.2, refused=True)
    made.failed("a", 10.3, lost=True)
    made.probe_ok("a", 11)
    assert made.part("a", 11) == 0.1


def test_an_ejection_for_bad_answers_keeps_its_time_whatever_the_checks_say() -> None:
    made = board(rise=1)
    fail_refused(made, "a", 10, times=EJECT_AFTER_FAILURES - 1)
    made.failed("a", 10)
    for now in (11, 12, 13):
        made.probe_ok("a", now)
    assert made.part("a", 39) == 0.0


def test_a_set_that_loses_requests_while_it_runs_stays_ejected() -> None:
    made = board(rise=1)
    for _ in range(EJECT_AFTER_FAILURES):
        made.failed("a", 10, lost=True)
    made.probe_ok("a", 11)
    made.probe_ok("a", 12)
    assert made.part("a", 39) == 0.0


def test_refusals_before_a_good_check_do_not_count_towards_an_ejection() -> None:
    made = board(rise=1)
    fail_refused(made, "a", 10, times=EJECT_AFTER_FAILURES - 1)
    made.probe_ok("a", 11)
    made.failed("a", 12, lost=True)
    assert not made.of("a").ejected(12)


def test_a_set_that_says_it_drains_gets_no_new_work_until_a_check_succeeds() -> None:
    made = board()
    assert made.drains("a", 10)
    assert not made.drains("a", 10)
    assert made.usable(SETS, 10) == {"b"}
    assert made.word("a", 10) == "draining"
    assert made.next_probe_s("a") < made.next_probe_s("b")
    # What it was given earlier it still answers, which says nothing about new work.
    assert made.of("a").alive()
    made.succeeded("a")
    assert made.usable(SETS, 10) == {"b"}
    assert made.probe_ok("a", 11)
    assert made.part("a", 11) == 0.1


def test_a_draining_set_is_the_last_to_be_asked_before_the_dead() -> None:
    made = board()
    made.drains("a", 0)
    fail(made, "b", 0)
    assert made.usable(SETS, 1) == {"b"}
    made.failed("b", 1, refused=True)
    assert made.usable(SETS, 1) == {"a"}


def crash(made: HealthBoard, name: str, now: float, back: float) -> float:
    """A set ends without a word, and listens again at `back`; when it is given work again."""
    made.failed(name, now, lost=True)
    made.probe_failed(name, now + 0.1, refused=True)
    made.probe_ok(name, back)
    return max(back, made.of(name).ejected_until)


def test_a_set_that_crashes_soon_after_each_return_is_left_alone_longer_each_time() -> None:
    made = board(rise=1)
    made.probe_ok("a", 0)
    now, away = 100.0, []
    for _ in range(13):
        given = crash(made, "a", now, now + 1)
        away.append(given - now - 1)
        assert made.usable(SETS, given - 0.01) == ({"b"} if away[-1] else set(SETS))
        assert made.usable(SETS, given) == set(SETS)
        now = given + 40  # It works for so long, which is no proof of health.
    assert away == [0.0] + [min(300.0, 30.0 * n) for n in range(1, 13)]


def test_a_crash_while_it_is_left_alone_counts_and_never_shortens_its_time() -> None:
    made = board(rise=1)
    made.probe_ok("a", 0)
    assert crash(made, "a", 10, 11) == 11
    assert crash(made, "a", 20, 21) == 51
    assert crash(made, "a", 30, 31) == 91


def test_what_counts_against_a_set_fades_while_it_is_well() -> None:
    made = board(rise=1)
    made.probe_ok("a", 0)
    given = 0.0
    for now in (10, 20, 30, 40):
        given = crash(made, "a", now, now + 1)
    assert (made.of("a").crashes, given) == (4, 41 + 90)
    # Four minutes and a bit of good health take two of the four.
    assert crash(made, "a", given + 250, given + 251) == given + 251 + 60
    assert made.of("a").crashes == 3
    # Being away is no good health.
    made.probe_failed("a", 1000, refused=True)
    before = made.of("a").crashes
    made.failed("a", 5000, refused=True)
    assert made.of("a").crashes == before
    made = board(rise=1)
    for now in (0, 30):
        fail(made, "a", now)
    assert made.of("a").ejected_until == 90
    fail(made, "a", 90 + 119)
    assert made.of("a").ejected_until == 90 + 119 + 90
    fail(made, "a", 299 + 361)
    assert made.of("a").ejected_until == 299 + 361 + 30


def test_planned_restarts_and_a_set_that_starts_late_are_no_crashes() -> None:
    made = board(rise=1)
    made.probe_ok("a", 0)
    for now in (10, 20, 30):
        made.drains("a", now)
        made.probe_failed("a", now + 1, refused=True)
        made.failed("a", now + 1, refused=True)
        made.probe_ok("a", now + 2)
        assert made.usable(SETS, now + 2) == set(SETS)
    late = board(rise=1)
    for now in range(10):
        late.probe_failed("a", now, refused=True)
    late.probe_ok("a", 10)
    assert late.of("a").crashes == 0
    assert late.usable(SETS, 10) == set(SETS)


def test_where_all_sets_crash_again_and_again_they_are_asked_all_the_same() -> None:
    made = board(rise=1)
    for name in SETS:
        made.probe_ok(name, 0)
        for now in (10, 20, 30):
            crash(made, name, now, now + 1)
    assert not any(made.of(name).well(32) for name in SETS)
    assert made.usable(SETS, 32) == set(SETS)


def test_a_refusal_that_no_check_confirms_is_no_crash() -> None:
    made = board(rise=1)
    made.probe_ok("a", 0)
    for now in (10, 20, 30):
        made.failed("a", now, refused=True)
        made.probe_ok("a", now + 0.2)
        assert made.usable(SETS, now + 0.2) == set(SETS)


EVENTS = st.tuples(
    st.sampled_from(SETS),
    st.sampled_from(("ok", "bad", "refused", "success", "failure", "lost", "reset", "drains", "wait")),
    st.floats(0, 100),
)


@given(st.lists(EVENTS, max_size=80))
def test_there_is_always_somebody_and_trouble_is_never_overlooked(
    events: list[tuple[str, str, float]],
) -> None:
    made = board()
    now = 0.0
    for name, what, later in events:
        now += later
        match what:
            case "ok":
                made.probe_ok(name, now)
            case "bad":
                made.probe_failed(name, now)
            case "refused":
                made.probe_failed(name, now, refused=True)
            case "success":
                made.succeeded(name)
            case "failure":
                made.failed(name, now)
            case "lost":
                made.failed(name, now, refused=True)
            case "reset":
                made.failed(name, now, lost=True)
            case "drains":
                made.drains(name, now)
            case _:
                made.settle(now)
        usable = made.usable(SETS, now)
        assert usable
        # The fast way asks nobody when there is no trouble: then everybody must be usable.
        assert made.troubled or usable == set(SETS)
        healthy = {name for name in SETS if made.of(name).takes_work() and not made.of(name).ejected(now)}
        assert not healthy or usable == healthy
