"""Orders that were given for another moment are refused, and say what has become of the rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from router.config.reader import load
from router.rollout.orders import Given, Order, give
from router.rollout.record import Progress
from router.rollout.statefile import StateFile
from router.rollout.states import Moved, NeedsForce, NotAllowed, Phase
from router.routing.table import Table

FILE = b"""
version: 1
sets: {a: {url: "http://h:1"}, b: {url: "http://h:2"}, c: {url: "http://h:3"}}
default: {weights: {a: 100, b: 0, c: 0}}
rollout: {set: b, steps: [{weight: 1, hold: 10m}, {pause: true}, {weight: 50, hold: 1h}]}
"""


class Operators:
    """Several people before one state file, a second apart."""

    def __init__(self, folder: Path) -> None:
        self.state = StateFile(folder)
        self.table: Table = load(FILE).table
        self.now = 1e9

    def order(self, order: Order, **more: Any) -> Progress:
        self.now += 1.0
        return give(self.state, order, self.table, now=self.now, **more)

    def sees(self) -> Given:
        """The moment, as a page shows it."""
        progress = self.state.read()
        return Given(run=progress.run, event=progress.last_event)


@pytest.fixture
def operators(tmp_path: Path) -> Operators:
    return Operators(tmp_path)


def test_two_operators_who_skip_the_same_step_skip_one(operators: Operators) -> None:
    operators.order(Order.START, by="ann")
    both = operators.sees()
    assert operators.order(Order.SKIP, by="ann", given=both).step == 1
    with pytest.raises(Moved, match=r"event 2.*b is paused, at step 2 of 3.*look again"):
        operators.order(Order.SKIP, by="bob", given=both)
    assert operators.state.read().step == 1
    assert operators.order(Order.SKIP, by="bob", given=operators.sees()).step == 2


def test_only_one_of_two_starts_counts(operators: Operators) -> None:
    seen = operators.sees()
    operators.order(Order.START, given=seen)
    operators.order(Order.ABORT, at_once=True)
    # Without the moment, a late start would begin a release that was just taken back.
    with pytest.raises(Moved, match="b is aborted"):
        operators.order(Order.START, given=seen)
    assert operators.state.read().phase is Phase.ABORTED


def test_an_abort_of_one_rollout_does_not_hit_the_next(operators: Operators) -> None:
    operators.order(Order.START)
    first = Given(run=operators.sees().run)
    operators.order(Order.SKIP)
    # Within its own rollout an abort holds at any step.
    assert operators.order(Order.ABORT, at_once=True, given=first).phase is Phase.ABORTED
    assert operators.table.rollout is not None
    operators.table = replace(
        operators.table, rollout=type(operators.table.rollout)("c", operators.table.rollout.steps)
    )
    operators.order(Order.START)
    with pytest.raises(Moved, match="run 1, but by now the rollout of c is holding"):
        operators.order(Order.ABORT, given=first)
    assert operators.state.read().phase is Phase.HOLDING


def test_a_start_begins_the_plan_that_was_shown_or_none(operators: Operators) -> None:
    plan = operators.table.rollout
    assert plan is not None
    operators.table = replace(operators.table, rollout=type(plan)("b", plan.steps[2:]))
    with pytest.raises(Moved, match="another one by now"):
        operators.order(Order.START, given=Given(plan=plan.digest))
    assert operators.state.read() == Progress()


@pytest.mark.parametrize(
    ("given", "good"),
    [
        (Given(), True),
        (Given(step=1), True),
        (Given(step=2), False),
        (Given(phase="holding", set="b"), True),
        (Given(phase="paused"), False),
        (Given(set="c"), False),
    ],
)
def test_any_part_of_the_status_can_be_asked_for(operators: Operators, given: Given, good: bool) -> None:
    operators.order(Order.START)
    if good:
        assert operators.order(Order.PAUSE, given=given).phase is Phase.PAUSED
    else:
        with pytest.raises(Moved, match="look again"):
            operators.order(Order.PAUSE, given=given)


def test_what_does_not_fit_is_told_as_ever(operators: Operators) -> None:
    with pytest.raises(NotAllowed, match="cannot be paused"):
        operators.order(Order.PAUSE, given=operators.sees())
    with pytest.raises(Moved, match="there was no rollout yet"):
        operators.order(Order.SKIP, given=Given(step=1))


# Live health.

UP = {"a": "up", "b": "up", "c": "up"}


def test_nothing_is_released_onto_a_set_that_is_down_but_by_force(operators: Operators) -> None:
    down = {**UP, "b": "down"}
    with pytest.raises(NeedsForce, match=r"set .b. takes no new requests: it is down; .*--force"):
        operators.order(Order.START, health=down)
    assert operators.state.read().plan is None
    operators.order(Order.START, health=UP)
    with pytest.raises(NeedsForce):
        operators.order(Order.SKIP, health=down)
    operators.order(Order.PAUSE, health=down)
    with pytest.raises(NeedsForce):
        operators.order(Order.RESUME, health=down)
    assert operators.order(Order.SKIP, health=down, force=True).step == 1


def test_an_abort_onto_sets_that_are_down_takes_force(operators: Operators) -> None:
    operators.order(Order.START, health=UP)
    down = {**UP, "a": "ejected"}
    with pytest.raises(
        NeedsForce, match="no set would take new requests of the default weights: a is ejected"
    ):
        operators.order(Order.ABORT, health=down)
    assert operators.state.read().phase is Phase.HOLDING
    # Where nobody serves already, an abort makes nothing worse.
    assert operators.order(Order.ABORT, health={**down, "b": "down"}).phase is Phase.ABORTED


def test_an_end_is_judged_by_the_weights_of_the_file(operators: Operators) -> None:
    operators.order(Order.START, health=UP)
    for _ in range(3):
        operators.order(Order.SKIP, health=UP)
    assert operators.state.read().phase is Phase.DONE
    down = {**UP, "a": "down"}  # The file gives it everything, the rollout half.
    with pytest.raises(NeedsForce, match="a is down"):
        operators.order(Order.END, health=down)
    assert operators.order(Order.END, health=down, force=True).phase is Phase.IDLE
