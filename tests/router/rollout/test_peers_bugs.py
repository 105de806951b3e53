"""Mistakes of peers in automated releases, each with a test that this router does not make it."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from router.rollout.glide import Load
from router.rollout.orders import in_force
from router.rollout.record import Abort, Start
from router.rollout.states import Phase
from router.routing.plan import Step
from router.routing.table import SetEntry, Table, Weights, key_hash
from tests.router.rollout.release import FAIL, FEW, PASS, URLS, Release, plan

SETS = {name: SetEntry(name, "h", 80) for name in ("a", "b")}
FILE = Table(version=1, sets=SETS, default=Weights(SETS, {"a": 9_500, "b": 500}))
ABORT_BOUND_S = 60
"""However it goes: so long after an abort began, the canary has nothing."""


def released(weight: int, *, held_s: float, shares: dict[str, int] | None = None) -> Release:
    """b was brought to `weight` step by step and has been there for a while."""
    steps = (Step(100, 60.0), Step(weight, 100_000.0))
    release = Release(plan(*steps), shares=shares or {"a": 9_500, "b": 500}).start()
    release.run(60)
    assert release.weight == weight
    release.run(held_s)
    return release


def descent(release: Release) -> list[int]:
    """Return the canary's weights from an abort to its end, one a second."""
    release.happen(Abort())
    weights = [release.weight]
    while release.phase != Phase.ABORTED:
        release.tick(None)
        weights.append(release.weight)
        assert len(weights) <= ABORT_BOUND_S + 1
    return weights


# An abort that leaves weight above 0.


@pytest.mark.parametrize("weight", [101, 3_000, 10_000])
@pytest.mark.parametrize("by", ["check", "hand"])
def test_an_abort_ends_at_weight_0_although_the_file_says_5(weight: int, by: str) -> None:
    release = released(weight, held_s=400)
    if by == "hand":
        release.happen(Abort())
    else:
        release.tick(FAIL)
    release.run_until(Phase.ABORTED, ABORT_BOUND_S, None)
    release.run(5_000, PASS)
    live = in_force(FILE, release.progress)
    assert live.default.shares == {"a": 10_000, "b": 0}
    homes = {live.default.home(key_hash(b"%d" % number)) for number in range(5_000)}
    assert homes == {SETS["a"]}


def test_an_abort_in_the_middle_of_an_abort_makes_it_one_move() -> None:
    release = released(10_000, held_s=400)
    release.happen(Abort())
    assert release.weight > 0
    release.happen(Abort("ops", "now", at_once=True))
    assert (release.phase, release.weight) == (Phase.ABORTED, 0)


def test_an_abort_at_once_is_one_move_from_anywhere() -> None:
    release = released(10_000, held_s=400)
    release.happen(Abort("ops", "data leaks", at_once=True))
    assert (release.phase, release.weight) == (Phase.ABORTED, 0)


# A fast rollback that sends 70 % to a set sized for 5 %; an abort that floods a cold stable set.


def test_a_small_share_is_taken_back_in_one_move() -> None:
    assert descent(released(3_000, held_s=400)) == [0]


def test_a_stable_set_that_was_warm_moments_ago_gets_all_back_in_one_move() -> None:
    assert descent(released(9_500, held_s=60)) == [0]


def test_a_stable_set_gone_cold_is_never_more_than_doubled_at_once() -> None:
    weights = descent(released(9_500, held_s=400))
    carried = [500, *(10_000 - weight for weight in weights)]
    moves = [(old, new) for old, new in pairwise(carried) if old != new]
    assert len(moves) >= 4
    assert all(new <= 2 * old for old, new in moves)
    assert weights[-1] == 0


def test_a_stable_set_that_carries_nothing_begins_with_a_little() -> None:
    weights = descent(released(10_000, held_s=400))
    assert weights[0] == 9_500
    assert weights[-1] == 0


def test_seventy_percent_are_not_sent_to_a_set_that_is_nearly_full() -> None:
    """b has 70 %; a, with its 30, has 60 requests in flight of 100 allowed: the first move may bring it to 80."""
    release = released(7_000, held_s=400)
    release.loads = {"a": Load(60, 100), "b": Load(140, None)}
    release.tick(PASS)
    release.happen(Abort())
    assert 10_000 - release.weight <= 3_000 * 80 / 60
    # And though a stays full for good, the sick canary is gone in time.
    release.loads = {"a": Load(100, 100)}
    release.run_until(Phase.ABORTED, ABORT_BOUND_S, None)


def test_room_is_asked_for_also_where_the_set_was_warm_moments_ago() -> None:
    release = released(7_000, held_s=10)
    release.loads = {"a": Load(90, 100)}
    release.tick(PASS)
    release.happen(Abort())
    assert release.weight > 5_000


def test_the_short_way_back_is_for_a_set_that_carried_as_much() -> None:
    """b is at 100 %. A return to a, which carried 95 % half an hour ago, skips the steps, gently. A return to a set
    that never had more than 5 % takes the steps."""
    release = Release(plan(Step(100, 60.0), Step(10_000)), shares={"a": 9_500, "b": 500}).start()
    release.run(60)
    assert release.phase == Phase.DONE
    release.now += 1_800.0

    back = plan(Step(100, 600.0), Step(9_500, 600.0), return_window_s=3_600.0)
    release.plan = msgspec.structs.replace(back, set="a")
    release.start()
    assert release.phase == Phase.RETURNING
    shares = [release.weight]
    stints = {release.weight: release.progress.stint}
    while release.phase == Phase.RETURNING:
        release.tick(PASS)
        shares.append(release.weight)
        stints[release.weight] = release.progress.stint
    assert len(set(stints.values())) == 1, "its moves are too short to be judged by themselves"
    assert (release.phase, release.weight) == (Phase.HOLDING, 9_500)
    assert release.run_until(Phase.DONE, 601) >= 590, "held at its end as any step"
    moves = [(old, new) for old, new in pairwise(shares) if old != new]
    assert all(new <= max(500, 2 * old) for old, new in moves), "cold by now: not all at once either"


def test_a_set_sized_for_five_percent_gets_no_short_way() -> None:
    release = Release(
        plan(Step(1_000, 60.0), Step(7_000, 60.0), return_window_s=3_600.0), shares={"a": 9_500, "b": 500}
    )
    release.start()
    release.happen(Abort())
    release.now += 60.0
    release.start()
    assert (release.phase, release.weight) == (Phase.HOLDING, 1_000)


def returning(last: int = 10_000, **builds: str) -> Release:
    """b got everything as a's successor; a is returned to, which told build 1 then, and `builds` now."""
    release = Release(plan(Step(100, 60.0), Step(10_000)), shares={"a": 9_500, "b": 500})
    release.progress.builds = {"a": "1"}
    release.start().run(60)
    back = plan(Step(100, 600.0), Step(last), return_window_s=3_600.0)
    release.plan = msgspec.structs.replace(back, set="a")
    release.happen(Start(release.plan, release.shares, {"a": 0, "b": 10_000}, URLS, builds=builds))
    return release


def test_a_new_build_under_a_known_address_goes_by_the_steps() -> None:
    assert returning(a="1").phase == Phase.RETURNING
    assert returning(a="2").phase == Phase.HOLDING
    assert returning().phase == Phase.HOLDING, "a set that tells no build now is not known to be the same"


def test_a_return_to_everything_waits_for_requests_to_judge_by() -> None:
    release = returning(a="1")
    release.run(60, FEW)
    assert (release.phase, release.weight) == (Phase.RETURNING, 8_000)
    assert "goes on when it can be judged" in release.progress.reason
    release.run_until(Phase.HOLDING, 6)
    assert release.weight == 10_000
    assert release.run_until(Phase.DONE, 70) >= 55


def test_a_return_without_requests_stops_for_a_person() -> None:
    release = returning(a="1")
    waited = release.run_until(Phase.PAUSED, 400, FEW)
    assert waited >= 300
    assert "stays without a verdict" in release.progress.reason
    assert release.weight < 10_000


def test_a_return_that_fails_in_its_last_hold_is_taken_back() -> None:
    release = returning(a="1")
    release.run_until(Phase.HOLDING, 60)
    release.tick(FAIL)
    assert release.phase in (Phase.ABORTING, Phase.ABORTED)


def test_a_return_after_the_window_goes_by_the_steps() -> None:
    release = Release(plan(Step(100, 60.0), Step(10_000)), shares={"a": 9_500, "b": 500}).start()
    release.run(60)
    release.now += 7_200.0
    back = plan(Step(100, 600.0), Step(9_500, 600.0), return_window_s=3_600.0)
    release.plan = msgspec.structs.replace(back, set="a")
    release.start()
    assert (release.phase, release.weight) == (Phase.HOLDING, 100)


def test_a_sick_set_that_is_returned_to_is_taken_back() -> None:
    release = Release(plan(Step(100, 60.0), Step(10_000)), shares={"a": 9_500, "b": 500}).start()
    release.run(60)
    back = plan(Step(100, 600.0), Step(9_500, 600.0), return_window_s=3_600.0)
    release.plan = msgspec.structs.replace(back, set="a")
    release.start()
    release.tick(PASS)
    release.tick(FAIL)
    assert release.phase in (Phase.ABORTING, Phase.ABORTED)


# Traffic that vanishes midway and the rollout advances.


def test_traffic_that_vanishes_midway_does_not_advance() -> None:
    release = Release(plan()).start()
    release.run(300, PASS)
    release.requests = 0.0
    release.run(300, PASS)
    assert (release.phase, release.weight) == (Phase.WAITING, 100)
    assert "dried up" in release.progress.reason
    release.run(1_300, PASS)
    assert (release.phase, release.weight) == (Phase.PAUSED, 100)


def test_a_few_stray_requests_are_no_traffic() -> None:
    release = Release(plan()).start()
    release.run(300, PASS)
    release.requests = 0.01
    release.run(1_500, PASS)
    assert (release.phase, release.weight) == (Phase.PAUSED, 100)


def test_traffic_that_comes_back_in_time_goes_on() -> None:
    release = Release(plan()).start()
    release.run(300, PASS)
    release.requests = 0.0
    release.run(400, PASS)
    release.requests = 10.0
    release.run(60, PASS)
    assert release.weight == 1_000


def test_no_traffic_at_all_does_not_advance() -> None:
    release = Release(plan(), requests=0.0).start()
    release.run(10_000, FEW)
    assert (release.phase, release.weight) == (Phase.PAUSED, 100)


# Sticky keys that drift to 100 %.


def test_sticky_keys_do_not_drift() -> None:
    """Up, down and up again: at each weight the same keys are on the canary, and as many as its weight says."""
    keys = [key_hash(b"user-%d" % number) for number in range(10_000)]
    seen: dict[int, frozenset[int]] = {}
    for _ in range(2):
        release = Release(plan(Step(100, 60.0), Step(1_000, 60.0), Step(5_000, 60.0))).start()
        while release.phase == Phase.HOLDING:
            live = in_force(FILE, release.progress)
            on_canary = frozenset(key for key in keys if live.default.home(key) is SETS["b"])
            assert seen.setdefault(release.weight, on_canary) == on_canary
            assert abs(len(on_canary) - release.weight) < 4 * release.weight**0.5
            release.run(60)
        release.happen(Abort())
    assert seen[100] < seen[1_000] < seen[5_000]
