"""Choosing among sets that are away, slow to return, full or small."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.choosing.choice import SPILL_AT_LEAST, Chooser
from router.choosing.earlier_tables import EarlierTables
from router.choosing.health import HealthBoard
from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.routing.policies import EJECT_AFTER_FAILURES, HealthPolicy
from router.routing.table import IfDown, Match, MatchKind, Rule, SetEntry, SetState, Table, Weights, key_hash
from tests.router.routing.asked import Asked

SYNC = Purpose(Destination.RUN, RequestKind.SYNC_RUN)
ASYNC = Purpose(Destination.RUN, RequestKind.UNSAFE)


@dataclass
class Load:
    inflight: int = 0


@dataclass
class Scene:
    """A chooser over made sets; time is what the test says."""

    chooser: Chooser
    loads: dict[str, Load]
    now: float = 1000.0

    @classmethod
    def of(
        cls,
        shares: Mapping[str, int],
        *,
        limits: Mapping[str, int] | None = None,
        states: Mapping[str, SetState] | None = None,
        slow_start_s: float = 10.0,
        rules: Callable[[Mapping[str, SetEntry]], tuple[Rule, ...]] = lambda sets: (),
        earlier: EarlierTables | None = None,
    ) -> Scene:
        sets = {
            name: SetEntry(name, "h", 80, (states or {}).get(name, SetState.READY), (limits or {}).get(name))
            for name in shares
        }
        policy = HealthPolicy(slow_start_s=slow_start_s)
        table = Table(1, sets, Weights(sets, shares), rules(sets), health=policy)
        board = HealthBoard(policy)
        board.adopt(sets, policy)
        loads = {name: Load() for name in sets}
        return cls(Chooser(table, board, loads, earlier), loads)

    def user(self, number: int) -> Asked:
        return Asked(headers={b"x-user-id": b"user-%d" % number})

    def chosen(self, number: int) -> str | None:
        choice = self.chooser.choose(SYNC, self.user(number), None, self.now)
        return choice.entry.name if choice.entry is not None else None

    def counts(self, users: int = 2000) -> dict[str | None, float]:
        """Shares of users by set, in percent."""
        names = [self.chosen(number) for number in range(users)]
        return {name: 100 * names.count(name) / users for name in set(names)}

    def kill(self, name: str) -> None:
        # It was at work before.
        self.chooser.board.probe_ok(name, self.now)
        self.chooser.board.probe_failed(name, self.now, refused=True)

    def revive(self, name: str) -> None:
        assert self.chooser.board.probe_ok(name, self.now)

    def eject(self, name: str) -> None:
        for _ in range(EJECT_AFTER_FAILURES):
            self.chooser.board.failed(name, self.now)


# Slow start.


def test_a_set_that_returns_grows_back_and_its_users_come_home_one_by_one() -> None:
    scene = Scene.of({"a": 5000, "b": 5000})
    homes = [scene.chosen(number) for number in range(500)]
    scene.kill("a")
    assert {scene.chosen(number) for number in range(500)} == {"b"}
    scene.revive("a")
    had: set[int] = set()
    seen = []
    for _ in range(12):
        here = {number for number in range(500) if scene.chosen(number) == "a"}
        assert had <= here
        had = here
        seen.append(len(here))
        scene.now += 1.0
    assert 0 < seen[0] < seen[4] < seen[-1]
    assert [scene.chosen(number) for number in range(500)] == homes
    scene.chooser.board.settle(scene.now)
    assert not scene.chooser.board.troubled


def test_an_ejection_that_ran_out_ends_in_a_slow_start_too() -> None:
    scene = Scene.of({"a": 5000, "b": 5000})
    scene.eject("a")
    scene.now += 29.9
    assert scene.counts() == {"b": 100.0}
    scene.now += 0.2
    assert 0 < scene.counts()["a"] < 20
    assert scene.chooser.board.word("a", scene.now) == "slow start"
    scene.now += 10
    assert scene.counts()["a"] > 45
    assert scene.chooser.board.word("a", scene.now) == "up"


def test_a_slow_start_may_be_turned_off() -> None:
    scene = Scene.of({"a": 5000, "b": 5000}, slow_start_s=0.0)
    scene.kill("a")
    scene.revive("a")
    assert scene.counts()["a"] > 45


def test_the_only_set_gets_all_however_slowly_it_starts() -> None:
    scene = Scene.of({"a": 10_000})
    scene.kill("a")
    scene.revive("a")
    assert scene.counts(50) == {"a": 100.0}


def test_a_returning_stable_set_is_not_spared_at_the_canarys_cost() -> None:
    scene = Scene.of({"a": 9900, "b": 100})
    scene.kill("a")
    scene.revive("a")
    scene.loads["b"].inflight = SPILL_AT_LEAST
    homes_of_b = {number for number in range(2000) if scene.chosen(number) == "b"}
    fresh = Scene.of({"a": 9900, "b": 100})
    assert homes_of_b == {number for number in range(2000) if fresh.chosen(number) == "b"}


def test_percentages_tell_what_counts_now() -> None:
    scene = Scene.of({"a": 8000, "b": 2000, "c": 0}, states={})
    assert scene.chooser.percentages(scene.now) == {"a": 80.0, "b": 20.0}
    scene.kill("a")
    assert scene.chooser.percentages(scene.now) == {"b": 100.0}
    scene.revive("a")
    assert scene.chooser.percentages(scene.now)["a"] == pytest.approx(100 * 800 / 2800)
    drained = Scene.of({"a": 8000, "b": 2000}, states={"a": SetState.DRAIN})
    assert drained.chooser.percentages(0.0) == {"b": 100.0}


# A full set.


def test_a_full_stable_set_does_not_flood_the_canary() -> None:
    scene = Scene.of({"a": 9500, "b": 500}, limits={"a": 100})
    scene.loads["a"].inflight = 100
    to_b = 0
    for number in range(400):
        if scene.chosen(number) == "b":
            scene.loads["b"].inflight += 1
            to_b += 1
    fair = 100 * 500 / 9500
    homes = sum(Scene.of({"a": 9500, "b": 500}).chosen(number) == "b" for number in range(400))
    assert to_b <= 2 * fair + SPILL_AT_LEAST + homes
    problem = scene.chooser.choose(SYNC, scene.user(1), None, scene.now).problem
    assert problem is not None
    assert (problem.name, problem.executed) == ("sets-full", False)


def test_a_retry_of_what_a_well_but_full_set_refused_is_bounded_too() -> None:
    scene = Scene.of({"a": 9900, "b": 100})
    number = next(number for number in itertools.count() if scene.chosen(number) == "a")
    choice = scene.chooser.choose(SYNC, scene.user(number), None, scene.now)
    other = scene.chooser.another(choice, frozenset({"a"}), scene.now)
    assert other is not None
    assert other.name == "b"
    scene.loads["b"].inflight = SPILL_AT_LEAST
    assert scene.chooser.another(choice, frozenset({"a"}), scene.now) is None


def test_sets_of_like_weight_help_each_other_without_such_a_bound() -> None:
    scene = Scene.of({"a": 5000, "b": 5000}, limits={"a": 10})
    scene.loads["a"].inflight = 10
    scene.loads["b"].inflight = 500
    assert scene.counts(100) == {"b": 100.0}


def test_a_canary_with_a_limit_of_its_own_is_filled_to_that() -> None:
    scene = Scene.of({"a": 9900, "b": 100}, limits={"a": 10, "b": 50})
    scene.loads["a"].inflight = 10
    scene.loads["b"].inflight = 49
    assert scene.counts(50) == {"b": 100.0}
    scene.loads["b"].inflight = 50
    assert scene.counts(50) == {None: 100.0}


def test_where_the_stable_set_is_dead_the_canary_takes_all() -> None:
    scene = Scene.of({"a": 9900, "b": 100})
    scene.kill("a")
    scene.loads["b"].inflight = 1000
    assert scene.counts(50) == {"b": 100.0}


# Rules and panic.


def to_b(if_down: IfDown) -> Callable[[Mapping[str, SetEntry]], tuple[Rule, ...]]:
    def make(sets: Mapping[str, SetEntry]) -> tuple[Rule, ...]:
        return (Rule("r", Weights(sets, {"b": 10_000}), if_down, path=Match(MatchKind.PREFIX, "/")),)

    return make


def test_an_ejected_set_is_down_for_a_rule_that_may_fall_back() -> None:
    scene = Scene.of({"a": 10_000, "b": 0}, rules=to_b(IfDown.DEFAULT))
    assert scene.counts(20) == {"b": 100.0}
    scene.eject("b")
    assert scene.counts(20) == {"a": 100.0}


def test_a_rule_that_fails_when_down_never_falls_back() -> None:
    scene = Scene.of({"a": 10_000, "b": 0}, rules=to_b(IfDown.FAIL), limits={"b": 1})
    scene.loads["b"].inflight = 1
    assert scene.counts(20) == {None: 100.0}
    choice = scene.chooser.choose(SYNC, scene.user(1), None, scene.now)
    assert choice.problem is not None
    assert "rule 'r'" in choice.problem.detail


def test_in_panic_the_configured_weights_count() -> None:
    scene = Scene.of({"a": 9000, "b": 1000})
    homes = [scene.chosen(number) for number in range(300)]
    scene.eject("a")
    scene.eject("b")
    assert [scene.chosen(number) for number in range(300)] == homes


READ = Purpose(Destination.ANY, RequestKind.SAFE)


def test_reads_need_no_room_and_are_no_spill() -> None:
    scene = Scene.of({"a": 9_900, "b": 100}, limits={"a": 1})
    scene.loads["a"].inflight = 1
    scene.loads["b"].inflight = SPILL_AT_LEAST

    def asked(purpose: Purpose) -> set[str | None]:
        choices = [scene.chooser.choose(purpose, Asked(), None, scene.now) for _ in range(2_000)]
        return {None if choice.entry is None else choice.entry.name for choice in choices}

    assert asked(SYNC) <= {"b", None}
    assert asked(READ) == {"a", "b"}
    choice = scene.chooser.choose(READ, Asked(), None, scene.now)
    for tried, other in (("a", "b"), ("b", "a")):
        again = scene.chooser.another(choice, frozenset({tried}), scene.now, needs_room=False)
        assert again is not None
        assert again.name == other


# A task's owner.


def owner_of(scene: Scene, name: str) -> tuple[str | None, str | None]:
    purpose = Purpose(Destination.OWNER, RequestKind.SAFE, name)
    choice = scene.chooser.choose(purpose, Asked(), None, scene.now)
    again = scene.chooser.another(choice, frozenset({"a", "b"}), scene.now)
    assert again is choice.entry  # nobody else knows the task
    return choice.entry.name if choice.entry else None, choice.problem.name if choice.problem else None


def test_a_tasks_owner_answers_whatever_its_weight_health_and_load() -> None:
    scene = Scene.of({"a": 0, "b": 10_000}, states={"a": SetState.DRAIN}, limits={"a": 1})
    scene.loads["a"].inflight = 1
    scene.kill("a")
    assert owner_of(scene, "a") == ("a", None)
    assert owner_of(scene, "c") == (None, "unknown-task")
    assert owner_of(scene, "") == (None, "unknown-task")
    assert owner_of(Scene.of({"a": 10_000}, states={"a": SetState.MAINT}), "a") == (
        None,
        "set-in-maintenance",
    )


# Idempotency keys.


def asked_first(scene: Scene, key: bytes) -> tuple[str, list[str]]:
    choice = scene.chooser.choose(ASYNC, Asked(), key, scene.now)
    assert choice.entry is not None
    return choice.entry.name, [entry.name for entry in choice.ask_first]


def test_a_key_that_an_earlier_table_put_elsewhere_is_asked_for_there() -> None:
    before = Scene.of({"a": 10_000, "b": 0})
    earlier = EarlierTables()
    earlier.adopt(before.chooser.table, 0.0)
    after = Scene.of({"a": 5000, "b": 5000}, earlier=earlier)
    earlier.adopt(after.chooser.table, 60.0)
    asked = [asked_first(after, b"key-%d" % number) for number in range(50)]
    assert {name for name, _ in asked} == {"a", "b"}
    assert all(first == ([] if name == "a" else ["a"]) for name, first in asked)
    # Only async runs have such keys.
    choice = after.chooser.choose(SYNC, Asked(), b"key-1", after.now)
    assert choice.ask_first == ()


def test_a_key_whose_home_was_away_is_asked_for_where_it_went() -> None:
    scene = Scene.of({"a": 5000, "b": 5000}, slow_start_s=0.0)
    key = next(b"k%d" % n for n in itertools.count() if asked_first(scene, b"k%d" % n)[0] == "a")
    assert asked_first(scene, key) == ("a", [])
    scene.kill("a")
    assert asked_first(scene, key) == ("b", [])  # a cannot be asked
    scene.revive("a")
    assert asked_first(scene, key) == ("a", ["b"])
    scene.now += 25 * 3600
    assert asked_first(scene, key) == ("a", [])


def test_a_key_that_goes_elsewhere_is_asked_for_at_home_where_home_is_alive() -> None:
    scene = Scene.of({"a": 5000, "b": 5000}, limits={"a": 1})
    key = next(b"k%d" % n for n in itertools.count() if asked_first(scene, b"k%d" % n)[0] == "a")
    scene.loads["a"].inflight = 1
    assert asked_first(scene, key) == ("b", ["a"])


def test_a_key_of_a_rule_whose_set_was_away_is_asked_for_where_the_default_put_it() -> None:
    scene = Scene.of({"a": 10_000, "b": 0}, rules=to_b(IfDown.DEFAULT), slow_start_s=0.0)
    assert asked_first(scene, b"k") == ("b", [])
    scene.kill("b")
    assert asked_first(scene, b"k") == ("a", [])
    scene.revive("b")
    assert asked_first(scene, b"k") == ("b", ["a"])


def test_a_set_in_maintenance_or_dead_is_not_asked() -> None:
    earlier = EarlierTables()
    earlier.adopt(Scene.of({"a": 10_000, "b": 0, "c": 0}).chooser.table, 0.0)
    earlier.adopt(Scene.of({"a": 0, "b": 10_000, "c": 0}).chooser.table, 1.0)
    states = {"a": SetState.MAINT}
    scene = Scene.of({"a": 0, "b": 0, "c": 10_000}, states=states, earlier=earlier)
    earlier.adopt(scene.chooser.table, 2.0)
    assert asked_first(scene, b"k") == ("c", ["b"])
    scene.kill("b")
    assert asked_first(scene, b"k") == ("c", [])


# Whatever happens.

HAPPENINGS = st.tuples(
    st.sampled_from(("kill", "revive", "eject", "fill", "empty", "wait")),
    st.sampled_from("abc"),
    st.floats(0, 40),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(HAPPENINGS, max_size=25),
    st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(lambda shares: sum(shares) > 0),
)
def test_through_any_history_only_who_may_is_chosen_and_nobody_moves_without_need(
    history: list[tuple[str, str, float]], parts: list[int]
) -> None:
    total = sum(parts)
    shares = {name: part * 10_000 // total for name, part in zip("abc", parts, strict=True)}
    shares[max(shares, key=lambda name: shares[name])] += 10_000 - sum(shares.values())
    scene = Scene.of(shares, limits={"a": 1, "b": 1, "c": 1})
    board = scene.chooser.board
    weights = scene.chooser.table.default
    for what, name, later in history:
        match what:
            case "kill":
                scene.kill(name)
            case "revive":
                board.probe_ok(name, scene.now)
            case "eject":
                scene.eject(name)
            case "fill":
                scene.loads[name].inflight = 1
            case "empty":
                scene.loads[name].inflight = 0
            case _:
                scene.now += later
                board.settle(scene.now)
        well = {
            entry.name
            for entry in weights.entries
            if board.of(entry.name).well(scene.now) and not scene.loads[entry.name].inflight
        }
        whole = {each for each in well if board.part(each, scene.now) == 1.0}
        for number in range(20):
            key = key_hash(b"user-%d" % number)
            home = weights.home(key)
            assert home is not None
            chosen = scene.chosen(number)
            assert chosen is None or (shares[chosen] > 0 and not scene.loads[chosen].inflight)
            if well:
                assert chosen in well
            if home.name in whole and len(whole) == len(well):
                assert chosen == home.name
