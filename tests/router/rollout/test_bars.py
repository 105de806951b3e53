"""Sets that an abort took back: nothing reaches them, by weight or rule, until somebody says so."""

from __future__ import annotations

import msgspec
import pytest

from router.config.reader import load
from router.rollout.bars import Bar
from router.rollout.orders import in_force, starting
from router.rollout.record import Abort, Edited, End, Progress
from router.rollout.states import NotAllowed, Phase
from router.rollout.status import describe
from router.rollout.world import World
from router.routing.plan import AbortWhen, Plan, Step
from router.routing.table import SetState, Table
from tests.router.rollout.release import FAIL, URLS, Release, plan

FILE = """
version: 1
sets: {{a: {{url: "http://h:1"}}, b: {{url: "http://h:2"}}, c: {{url: "http://h:3"}}}}
rules:
  - {{name: qa, when: {{header: {{x-canary: b}}}}, to: b, if_down: fail}}
  - {{name: early, when: {{account: acme}}, weights: {{a: 50, b: 50}}}}
default: {{weights: {weights}}}
rollout: {{set: b, steps: [{{weight: 10, hold: 10m}}, {{weight: 50, hold: 1h}}]}}
"""


def file(weights: str = "{a: 95, b: 5, c: 0}") -> Table:
    return load(FILE.format(weights=weights).encode()).table


def aborted(**builds: str) -> Release:
    """b had 5 % by the file and was taken back in its first step."""
    release = Release(plan(), shares={"a": 9_500, "b": 500}).start()
    release.happen(Edited({"a": 9_500, "b": 500}, 1, URLS, builds))
    release.tick(FAIL)
    assert (release.phase, release.progress.in_force) == (Phase.ABORTED, ("b", 0))
    return release


def edited(release: Release, shares: dict[str, int], **builds: str) -> Release:
    release.now += 60.0
    release.happen(Edited(shares, 2, URLS, builds))
    return release


def test_an_aborted_set_gets_nothing_after_other_sets_were_edited() -> None:
    release = edited(aborted(), {"a": 5_000, "c": 4_500, "b": 500})
    assert release.phase is Phase.IDLE
    assert "b still gets nothing" in release.progress.reason
    release.progress = msgspec.json.decode(msgspec.json.encode(release.progress), type=Progress)
    live = in_force(file("{a: 50, b: 5, c: 45}"), release.progress)
    assert live.default.shares["b"] == 0
    assert describe(release.progress, file(), live)["barred"][0]["set"] == "b"


def test_an_aborted_set_gets_nothing_by_rules_but_answers_for_its_tasks() -> None:
    live = in_force(file(), aborted().progress)
    assert live.sets["b"].state is SetState.DRAIN, "as a set in drain, it answers for tasks that it owns"
    for rule in live.rules:
        assert all(entry.state is SetState.DRAIN for entry in rule.weights.entries if entry.name == "b")
    before = file().rules[1].weights
    for key in range(100):
        mine, was = live.rules[1].weights.home(key), before.home(key)
        assert mine is not None
        assert was is not None
        assert mine.name == was.name, "keys stay where they were, so they return when it does"


def test_another_weight_of_its_own_in_the_file_readmits_it() -> None:
    release = edited(aborted(), {"a": 9_000, "b": 1_000})
    assert release.progress.barred == {}
    assert release.progress.in_force is None
    assert release.kinds[-2:] == ["readmitted", "idle"]


def test_zero_in_the_file_readmits_nobody_and_a_weight_after_it_does() -> None:
    release = edited(aborted(), {"a": 10_000})
    assert in_force(file("{a: 100, b: 0, c: 0}"), release.progress).sets["b"].state is SetState.DRAIN
    assert edited(release, {"a": 9_500, "b": 500}).progress.barred == {}


def test_a_start_readmits_it_and_a_dry_run_does_not() -> None:
    release = aborted()
    dry = Release(
        msgspec.structs.replace(plan(), dry_run=True), release.shares, release.progress, release.now
    )
    assert dry.start().progress.barred
    assert release.start().progress.barred == {}
    assert release.progress.in_force == ("b", 100)


@pytest.mark.parametrize("idle", [False, True])
def test_an_end_readmits_it(idle: bool) -> None:
    release = aborted()
    if idle:
        edited(release, {"a": 5_000, "c": 4_500, "b": 500})
    told = describe(release.progress, file(), file())
    assert "end" in told["orders"]
    release.happen(End({"a": 9_500, "b": 500}, "ops"))
    assert (release.phase, release.progress.barred, release.progress.in_force) == (Phase.IDLE, {}, None)
    with pytest.raises(NotAllowed, match="no rollout left anything in force"):
        release.happen(End({"a": 9_500, "b": 500}, "ops"))


def test_another_build_readmits_it_and_silence_does_not() -> None:
    release = aborted(a="1.0", b="1.1")
    for builds in ({"b": "1.1"}, {}, {"a": "1.2"}):
        assert edited(release, {"a": 9_500, "b": 500}, **builds).progress.barred
    edited(release, {"a": 9_500, "b": 500}, b="1.2")
    assert (release.progress.barred, release.progress.in_force) == ({}, None)
    assert [event.text for event in release.progress.events[-2:]] == [
        "b may get requests again: its build is 1.2 now, and was 1.1",
        "b was readmitted, the file's weights count",
    ]


def test_a_set_that_comes_back_to_the_file_with_a_weight_is_readmitted() -> None:
    release = edited(aborted(), {"a": 10_000})
    release.happen(Edited({"a": 10_000}, 2, {"a"}))
    assert "b" in release.progress.barred
    release.now += 60.0
    release.happen(Edited({"a": 9_500, "b": 500}, 3, {"a", "b"}))
    assert release.progress.barred == {}


def test_a_set_that_left_the_file_and_is_no_rollouts_is_forgotten() -> None:
    release = edited(aborted(), {"a": 10_000})
    release.progress.barred = {**release.progress.barred, "c": Bar(1.0, "sick")}
    release.happen(Edited({"a": 10_000}, 2, {"a", "b"}))
    assert list(release.progress.barred) == ["b"]


def test_a_dry_run_that_fails_bars_nobody() -> None:
    release = Release(msgspec.structs.replace(plan(), dry_run=True)).start()
    release.happen(Abort())
    assert (release.phase, release.progress.barred) == (Phase.ABORTED, {})


def test_nothing_reaches_an_aborted_set_in_the_made_up_world() -> None:
    sick = Plan("b", (Step(500, 300.0), Step(10_000)), AbortWhen(min_requests=50))
    world = World(sick, {"a": 5_000, "b": 500, "c": 4_500}, seed=1, rate=20.0)
    world.builds["b"] = "1.1"
    world.tempers["b"].error = 1.0
    world.start()
    while world.progress.phase is not Phase.ABORTED:
        world.tick()
    world.edit({"a": 4_500, "b": 500, "c": 5_000})
    for _ in range(20):
        assert "b" not in world.tick().reached
    world.restart()
    assert "b" not in world.tick().reached
    world.builds["b"] = "1.2"
    world.tick()
    assert world.tick().reached["b"] > 0
    world.happen(starting(world.file, world.progress))
    assert world.progress.running
