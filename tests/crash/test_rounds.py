"""The rounds of a chapter: from the seed alone, and one for each step and each blow."""

from __future__ import annotations

import pytest

from tests.crash.rounds import Blow, chapter
from tests.crash.steps import STEPS

ROUNDS = 20


def test_a_seed_and_a_number_tell_a_chapter() -> None:
    assert chapter(7, 1) == chapter(7, 1)
    assert len({tuple(chapter(seed, number)) for seed in (7, 8) for number in (0, 1)}) == 4


@pytest.mark.parametrize("seed", range(10))
def test_a_chapter_has_each_step_and_each_blow_once_and_ends_with_a_set_that_lives(seed: int) -> None:
    rounds = chapter(seed, 0)
    assert len(rounds) == ROUNDS
    assert sorted(each.step for each in rounds if each.blow is Blow.STEP) == sorted(STEPS)
    blows = [each.blow for each in rounds if each.blow is not Blow.STEP]
    assert sorted(blows) == sorted(set(Blow) - {Blow.STEP})
    assert {each.blow for each in rounds[-3:]} == {Blow.GUEST, Blow.CONTAINER, Blow.ENGINE}


def test_a_set_dies_before_a_step_and_after_it() -> None:
    rounds = [each for number in range(20) for each in chapter(1, number) if each.blow is Blow.STEP]
    assert {(each.step, each.before) for each in rounds} == {
        (step, before) for step in STEPS for before in (False, True)
    }
