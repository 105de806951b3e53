"""Pieces of the evidence: windows that follow each other, what came before both sets had settled, and evidence that
adds up over the slices."""

from __future__ import annotations

from math import inf

import pytest

from router.counting.tally import Outcome, Tally, total
from router.rollout.lately import SLICE_S, Lately
from router.rollout.look import Look, Window
from router.rollout.record import Progress
from router.routing.plan import AbortWhen, CheckName, Plan, Step


def tally(ok: int = 0, error: int = 0) -> Tally:
    seen = Tally()
    for outcome, count in ((Outcome.OK, ok), (Outcome.ERROR, error)):
        for _ in range(count):
            seen.note(outcome, 20_000.0)
    return seen


def held(hold_s: float, *, stint: int = 3) -> Progress:
    return Progress(plan=Plan("b", (Step(500, hold_s),)), stint=stint)


def settled(look: Look) -> tuple[int, int]:
    assert look.warm is not None
    return look.warm[0].ok, look.warm[1].ok


def test_what_a_set_does_before_it_has_settled_is_cut_off() -> None:
    progress = held(200.0)
    lately = Lately()
    canary, control = tally(10), tally(9)
    lately.look(progress, canary, control)
    progress.clock_s = 20.0
    assert settled(lately.look(progress, canary, control)) == (0, 0)
    progress.clock_s = 21.0
    look = lately.look(progress, total([canary, tally(5)]), total([control, tally(4)]))
    assert settled(look) == (5, 4)
    progress.stint = 4
    assert settled(lately.look(progress, canary, control)) == (10, 9), "a leader that came later"


def test_windows_share_one_chance_of_a_false_alarm() -> None:
    assert sum(Window(Tally(), Tally(), number).part for number in range(1, 10_000)) <= 1.0


def test_windows_follow_each_other_and_the_first_is_the_whole() -> None:
    progress = held(400.0)
    lately = Lately()
    canary, control = tally(10), tally(10)
    assert lately.look(progress, canary, control).window is None
    progress.clock_s = 99.0
    assert lately.look(progress, canary, control).window is None
    progress.clock_s = 100.0
    lately.look(progress, canary, control)
    canary = total([canary, tally(7)])
    progress.clock_s = 150.0
    window = lately.look(progress, canary, control).window
    assert window is not None
    assert (window.canary.ok, window.control.ok, window.number) == (7, 0, 1)
    progress.clock_s = 210.0
    lately.look(progress, canary, control)
    window = lately.look(progress, total([canary, tally(1)]), control).window
    assert window is not None
    assert (window.canary.ok, window.number) == (1, 2)
    progress.stint = 4
    progress.clock_s = 0.0
    assert lately.look(progress, Tally(), Tally()).window is None


def seen_over(slices: int, canary: Tally, control: Tally) -> tuple[Look, Progress]:
    """Look while the tallies grow by the same in each slice."""
    progress, lately = held(1_200.0), Lately()
    sides = Tally(), Tally()
    look = lately.look(progress, *sides)
    for _ in range(slices):
        sides = total([sides[0], canary]), total([sides[1], control])
        progress.clock_s += SLICE_S
        look = lately.look(progress, *sides)
    return look, progress


def test_evidence_of_harm_grows_from_slice_to_slice() -> None:
    found = [
        seen_over(slices, tally(12, error=4), tally(150, error=1))[0].proof[CheckName.ERRORS]
        for slices in (2, 4, 8)
    ]
    assert found[0] > 0.0
    assert found == sorted(found)
    assert found[2] > found[1] + 4.0


def test_where_the_canary_is_no_worse_than_allowed_there_is_no_evidence() -> None:
    look, _ = seen_over(6, tally(100, error=2), tally(900, error=9))
    assert look.proof == {CheckName.ERRORS: -inf, CheckName.TASKS: -inf}


def test_a_check_whose_limit_is_off_gathers_no_evidence() -> None:
    progress = Progress(plan=Plan("b", (Step(500, 60.0),), AbortWhen(error_rate_over_baseline=None)))
    assert set(Lately().look(progress, tally(9), tally(9)).proof) == {CheckName.TASKS}


def test_open_requests_are_errors_while_they_are_open_and_no_longer_when_they_ended_well() -> None:
    progress, lately = held(1_200.0), Lately()
    control = tally(1_000)
    waiting, answered = tally(2), tally(14)
    waiting.open = {900: 12}
    lately.look(progress, Tally(), Tally())
    progress.clock_s = SLICE_S - 1.0
    assert lately.look(progress, waiting, control).proof[CheckName.ERRORS] > 10.0
    progress.clock_s = 2 * SLICE_S
    assert lately.look(progress, answered, control).proof[CheckName.ERRORS] == -inf


def test_a_rollout_that_begins_forgets_what_an_earlier_one_taught() -> None:
    progress, lately = held(1_200.0), Lately()
    sides = Tally(), Tally()
    for number in range(8):
        sides = total([sides[0], tally(15)]), total([sides[1], tally(300)])
        progress.clock_s = number * SLICE_S
        lately.look(progress, *sides)
    progress.clock_s = 120.0
    known = lately.look(progress, *sides).clumps
    progress.run, progress.clock_s = progress.run + 1, 120.0
    assert lately.look(progress, *sides).clumps != pytest.approx(known)
