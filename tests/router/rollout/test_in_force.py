"""What is reported is what is in force: dry runs over a rollout, aborts that nobody can bear, starts from above."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from router.config.reader import load
from router.rollout.orders import Order, give, in_force, others_of
from router.rollout.record import Abort, Edited, End, Progress, Resume, Skip
from router.rollout.statefile import StateFile
from router.rollout.states import NotAllowed, Phase
from router.rollout.status import describe
from router.routing.plan import Step, Undecided
from router.routing.table import SetState, Table
from tests.router.rollout.release import FAIL, FEW, Release, plan

FILE = """
version: 1
sets: {{a: {{url: "http://h:1", state: {state}}}, b: {{url: "http://h:2"}}, c: {{url: "http://h:3"}}}}
default: {{weights: {weights}}}
rollout: {{set: b, steps: [{{weight: 10, hold: 10m}}, {{weight: 50, hold: 1h}}]}}
"""
DONE_AT_100 = plan(Step(1_000, 10.0), Step(10_000))


def file(weights: str = "{a: 95, b: 5, c: 0}", state: str = "ready") -> Table:
    return load(FILE.format(weights=weights, state=state).encode()).table


def dry(release: Release) -> Release:
    release.plan = msgspec.structs.replace(plan(Step(500, 10.0), Step(2_000, 10.0)), dry_run=True)
    return release.start()


# A dry run over what the rollout before it left.


def after_done() -> Release:
    release = Release(DONE_AT_100, shares={"a": 9_500, "b": 500}).start()
    release.run(20)
    assert release.progress.in_force == ("b", 10_000)
    return release


def after_an_abort() -> Release:
    release = Release(plan(), shares={"a": 9_500, "b": 500}).start()
    release.tick(FAIL)
    assert release.progress.in_force == ("b", 0)
    return release


@pytest.mark.parametrize(("before", "weight"), [(after_done(), 10_000), (after_an_abort(), 0)])
@pytest.mark.parametrize("ends", ["passes", "fails", "by hand"])
def test_a_dry_run_keeps_what_the_rollout_before_it_left(before: Release, weight: int, ends: str) -> None:
    release = dry(Release(before.plan, before.shares, before.progress, before.now))
    while release.progress.running:
        assert release.progress.in_force == ("b", weight)
        if ends == "by hand":
            release.happen(Abort())
        else:
            release.tick(FAIL if ends == "fails" else None, 5.0)
            if ends == "passes":
                release.tick()
    assert release.progress.in_force == ("b", weight)
    assert f"b has {weight / 100:g} % still" in release.progress.events[-1].text
    shown = describe(release.progress, file(), in_force(file(), release.progress))
    assert (shown["now"], shown["dry_run"]) == (weight / 100, True)
    # And a dry run after it, and a restart, too.
    release.progress = msgspec.json.decode(msgspec.json.encode(release.progress), type=Progress)
    assert dry(release).progress.in_force == ("b", weight)
    release.run(5)
    release.happen(Edited({"a": 9_000, "b": 1_000}))
    assert release.progress.in_force is None, "edited weights count"
    release.happen(Resume())
    assert release.progress.in_force is None


def test_without_an_earlier_rollout_a_dry_run_leaves_all_to_the_file() -> None:
    release = dry(Release(plan(), shares={"a": 9_500, "b": 500}))
    assert release.progress.in_force is None
    release.progress = after_done().progress
    release.happen(End({"a": 9_500, "b": 500}))
    assert dry(release).progress.in_force is None


# Nobody to take over.


class Operators:
    """At the state file, with a file of weights that changes."""

    def __init__(self, folder: Path, now: float = 1e9) -> None:
        self.state, self.now, self.file = StateFile(folder), now, file()

    def order(self, order: Order, *, at_once: bool = False, force: bool = False) -> Progress:
        self.now += 5.0
        return give(self.state, order, self.file, at_once=at_once, force=force, now=self.now)

    def edit(self, table: Table) -> None:
        from router.rollout.progress import advance

        self.now += 5.0
        self.file = table
        self.state.change(lambda old: advance(old, Edited(table.default.shares, 2), self.now)[0])

    def shares(self) -> dict[str, int]:
        live = in_force(self.file, self.state.read())
        return {name: share for name, share in live.default.shares.items() if share}


@pytest.fixture
def operators(tmp_path: Path) -> Operators:
    return Operators(tmp_path)


def test_an_abort_gives_all_to_those_who_last_had_it_where_the_file_gives_it_to_the_canary(
    operators: Operators,
) -> None:
    operators.order(Order.START)
    operators.edit(file("{a: 0, b: 100, c: 0}"))
    assert operators.shares() == {"b": 10_000}
    after = operators.order(Order.ABORT, at_once=True)
    assert after.phase is Phase.ABORTED
    assert operators.shares() == {"a": 10_000}
    assert "the file still says 100 %: write 0 into it" in after.events[-1].text


def test_a_step_that_is_resumed_below_the_file_is_what_it_says(operators: Operators) -> None:
    operators.order(Order.START)
    operators.edit(file("{a: 0, b: 100, c: 0}"))
    operators.now += 1_000.0
    after = operators.order(Order.RESUME)
    assert operators.shares() == {"a": 10_000 - after.weight, "b": after.weight}
    assert 1_000 < after.weight < 10_000, "and goes down as a can bear it"


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_an_abort_onto_sets_that_take_no_work_is_refused(operators: Operators, state: str) -> None:
    operators.order(Order.START)
    operators.file = file(state=state)
    before = operators.state.read()
    with pytest.raises(NotAllowed, match=r"only a would take over from 'b'.*--force"):
        operators.order(Order.ABORT)
    with pytest.raises(NotAllowed, match="--force"):
        operators.order(Order.ABORT, at_once=True)
    assert operators.state.read() == before
    assert operators.order(Order.ABORT, force=True).phase is Phase.ABORTED


def test_an_abort_is_refused_where_no_other_set_is_left_at_all(operators: Operators) -> None:
    operators.order(Order.START)
    alone = file("{a: 0, b: 100, c: 0}")
    sets = {name: entry for name, entry in alone.sets.items() if name != "a"}
    operators.edit(Table(1, sets, type(alone.default)(sets, {"b": 10_000, "c": 0}), rollout=alone.rollout))
    with pytest.raises(NotAllowed, match="give one a weight first"):
        operators.order(Order.ABORT, force=True)


def test_a_start_is_refused_where_no_other_set_takes_work(operators: Operators) -> None:
    operators.file = file(state="drain")
    with pytest.raises(NotAllowed, match="no set but 'b' takes new work"):
        operators.order(Order.START)


@pytest.mark.parametrize("by", ["checks", "no data"])
def test_a_sick_canary_without_anybody_to_take_over_stays_until_there_is_one(by: str) -> None:
    release = Release(plan(Step(1_000, 10.0), on_no_data=Undecided.ABORT, max_wait_s=60.0)).start()
    release.others = {"a": False}
    seen = FAIL if by == "checks" else FEW
    release.run_until(Phase.PAUSED, 100, seen)
    release.run(20, seen)
    assert (release.phase, release.weight) == (Phase.PAUSED, 1_000)
    assert "no other set takes new work" in release.progress.reason
    assert release.kinds.count("stuck") == 1
    release.others = {"a": True}
    release.tick(FAIL)
    assert (release.phase, release.weight) == (Phase.ABORTED, 0)


def test_a_glide_waits_while_nobody_takes_work_and_force_ends_it() -> None:
    release = after_done()
    release.now += 1_000.0
    release.happen(Abort())
    weight = release.weight
    assert release.phase == Phase.ABORTING
    release.others = {"a": False}
    release.run(120)
    assert (release.phase, release.weight) == (Phase.ABORTING, weight)
    with pytest.raises(NotAllowed, match="--force"):
        release.happen(Abort(at_once=True, others=release.others))
    release.others = {"a": True}
    release.run_until(Phase.ABORTED, 65)


def test_who_takes_over_is_read_from_the_table() -> None:
    progress = after_done().progress
    table = file(state="drain")
    assert others_of(table, progress) == {"a": False}
    assert table.sets["a"].state is SetState.DRAIN
    assert others_of(table, Progress()) is None


# A start from above its first step.


@pytest.mark.parametrize("stood", ["done", "file"])
def test_a_start_below_the_weight_in_force_goes_down_as_the_others_can_bear_it(stood: str) -> None:
    release = after_done() if stood == "done" else Release(plan(), shares={"a": 4_000, "b": 6_000})
    release.now += 1_000.0
    before = 10_000 if stood == "done" else 6_000
    release.plan = plan(Step(1_000, 60.0), Step(2_000))
    release.start()
    weights = [before, release.weight]
    assert "move by move" in release.progress.reason
    while release.weight > 1_000:
        assert release.phase == Phase.HOLDING
        assert release.progress.held_s == 0.0, "its hold begins at its weight"
        release.tick()
        weights.append(release.weight)
        assert len(weights) < 65
    carried = [10_000 - weight for weight in weights]
    assert all(new <= max(500, 2 * old) for old, new in pairwise(carried))
    assert len(set(weights)) >= (5 if stood == "done" else 3)
    release.run(59)
    assert release.weight == 1_000
    release.run(1)
    assert release.weight == 2_000


def test_a_last_step_without_hold_ends_only_once_it_is_reached() -> None:
    release = after_done()
    release.now += 1_000.0
    release.plan = plan(Step(1_000))
    release.start()
    assert release.phase == Phase.HOLDING
    with pytest.raises(NotAllowed, match="on its way down"):
        release.happen(Skip())
    release.run_until(Phase.DONE, 65)
    assert release.progress.in_force == ("b", 1_000)


def test_a_small_step_down_is_one_move() -> None:
    release = Release(plan(Step(100, 60.0)), shares={"a": 9_500, "b": 500}).start()
    assert release.weight == 100


def test_a_sick_canary_on_its_way_down_is_taken_back() -> None:
    release = after_done()
    release.now += 1_000.0
    release.plan = plan(Step(1_000, 60.0))
    release.start()
    release.tick(FAIL)
    assert release.phase == Phase.ABORTING


# What was taken back stays so.


def test_a_release_of_the_other_set_does_not_raise_who_was_taken_back() -> None:
    release = after_an_abort()
    release.plan = msgspec.structs.replace(plan(Step(1_000, 60.0)), set="a")
    with pytest.raises(NotAllowed, match="'b' was taken back, and would get 90 %"):
        release.start()


def test_the_file_counts_again_when_somebody_ends_the_rollout() -> None:
    for release in (after_done(), after_an_abort()):
        release.happen(End({"a": 9_500, "b": 500}, "ops"))
        assert (release.phase, release.progress.in_force) == (Phase.IDLE, None)
        with pytest.raises(NotAllowed, match="count already"):
            release.happen(End({"a": 9_500, "b": 500}))
    release = Release(plan()).start()
    with pytest.raises(NotAllowed, match="under way"):
        release.happen(End({"a": 10_000}))


def test_a_set_that_takes_no_work_is_given_no_more(operators: Operators) -> None:
    operators.order(Order.START)
    operators.file = load(
        FILE.format(weights="{a: 95, b: 5}", state="ready").replace('h:2"', 'h:2", state: drain').encode()
    ).table
    for order in (Order.SKIP, Order.RESUME):
        with pytest.raises(NotAllowed, match="make it `ready` first"):
            operators.order(order)
        if order is Order.SKIP:
            operators.order(Order.PAUSE)
