"""The choice of a set: shares, stickiness, the least movement, states and rules."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from router.choosing.choice import Chooser
from router.choosing.health import HealthBoard
from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.routing.policies import HealthPolicy
from router.routing.table import (
    WEIGHT_TOTAL,
    IfDown,
    KeyPart,
    KeySource,
    Match,
    MatchKind,
    Rule,
    SetEntry,
    SetState,
    Table,
    Weights,
    key_hash,
    shares_of,
)
from tests.router.routing.asked import Asked

KEYS = [key_hash(b"user-%d" % number) for number in range(20_000)]
RUN = Purpose(Destination.RUN, RequestKind.SYNC_RUN)


@dataclass
class Idle:
    inflight: int = 0


def entries(
    *names: str, states: Mapping[str, SetState] | None = None, **more: int | None
) -> dict[str, SetEntry]:
    states = states or {}
    return {
        name: SetEntry(name, "h", 80, states.get(name, SetState.READY), more.get("max_inflight"))
        for name in names
    }


def weighted(**shares: int) -> Weights:
    return Weights(entries(*shares), shares)


def homes(weights: Weights, keys: list[int] = KEYS) -> list[str]:
    found = []
    for key in keys:
        entry = weights.home(key)
        assert entry is not None
        found.append(entry.name)
    return found


@st.composite
def weightings(draw: st.DrawFn, low: int = 1, high: int = 8) -> dict[str, int]:
    """Shares of some sets that total 100 %, any of them perhaps 0."""
    count = draw(st.integers(low, high))
    cuts = sorted(draw(st.lists(st.integers(0, WEIGHT_TOTAL), min_size=count - 1, max_size=count - 1)))
    edges = [0, *cuts, WEIGHT_TOTAL]
    return {f"s{index}": right - left for index, (left, right) in enumerate(pairwise(edges))}


@settings(max_examples=25, deadline=None)
@given(weightings())
def test_shares_follow_the_weights(shares: dict[str, int]) -> None:
    counts = shares_of(Weights(entries(*shares), shares), KEYS)
    for name, share in shares.items():
        expected = len(KEYS) * share / WEIGHT_TOTAL
        # Six standard deviations of a binomial: never by chance in the life of this test.
        spread = 6 * (expected * (1 - share / WEIGHT_TOTAL)) ** 0.5 + 1
        assert abs(counts[name] - expected) <= spread, (name, counts)
        assert share > 0 or counts[name] == 0


def test_a_hundredth_of_a_percent_is_a_share() -> None:
    keys = [random.Random(7).getrandbits(64) for _ in range(1)] + [
        key_hash(b"%d" % n) for n in range(200_000)
    ]
    counts = shares_of(weighted(a=9_999, b=1), keys)
    assert 4 <= counts["b"] <= 45  # 20 expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, WEIGHT_TOTAL), st.integers(0, WEIGHT_TOTAL))
def test_a_ramp_between_two_sets_moves_only_the_difference(before: int, after: int) -> None:
    old = homes(weighted(a=WEIGHT_TOTAL - before, b=before))
    new = homes(weighted(a=WEIGHT_TOTAL - after, b=after))
    moves = {(left, right) for left, right in zip(old, new, strict=True) if left != right}
    assert moves <= ({("a", "b")} if after > before else {("b", "a")})


@settings(max_examples=30, deadline=None)
@given(weightings(2, 6), st.data())
def test_growth_of_one_set_moves_keys_only_to_it(shares: dict[str, int], data: st.DataObject) -> None:
    """The others keep their proportions, and because weights are relative, no key moves between them."""
    name = data.draw(st.sampled_from(sorted(shares)))
    grown = {**shares, name: shares[name] + data.draw(st.integers(1, WEIGHT_TOTAL))}
    names = entries(*shares)
    for left, right in zip(homes(Weights(names, shares)), homes(Weights(names, grown)), strict=True):
        assert right in (left, name)


@settings(max_examples=30, deadline=None)
@given(weightings(2, 6), st.data())
def test_only_a_dead_sets_keys_are_picked_anew(shares: dict[str, int], data: st.DataObject) -> None:
    weights = Weights(entries(*shares), shares)
    dead = data.draw(st.sampled_from(sorted(name for name in shares if shares[name])))
    others = [name for name in shares if shares[name] and name != dead]
    for key in KEYS[:2000]:
        home = weights.home(key)
        assert home is not None
        chosen = weights.among(key, lambda entry: entry.name != dead)
        if home.name != dead:
            assert chosen is home
        elif others:
            assert chosen is not None
            assert chosen.name in others
        else:
            assert chosen is None
        assert weights.among(key, lambda entry: True) is home


def test_the_choice_is_the_same_everywhere_for_ever() -> None:
    """Golden values: a new version of the router must not move any key."""
    assert key_hash(b"user-1") == 0x9AAC5A8621EAE188
    assert (
        "".join(homes(weighted(a=5_000, b=3_000, c=2_000), KEYS[:32])) == "abbaaabaaabbbbabbaaccaaabaacabaa"
    )


# Keys.


def table(weights: Weights, **more: object) -> Table:
    sets = {entry.name: entry for entry in weights.entries}
    return Table(version=1, sets=sets, default=weights, **more)  # type: ignore[arg-type]


def test_a_user_sticks_and_others_are_random() -> None:
    routing = table(weighted(a=5_000, b=5_000))
    asked = Asked(headers={b"x-user-id": b"u1"})
    assert len({routing.sticky_key(asked) for _ in range(50)}) == 1
    assert len({routing.sticky_key(Asked()) for _ in range(50)}) == 50


def test_the_first_key_that_a_request_has_counts() -> None:
    parts = (KeyPart(KeySource.HEADER, b"x-a"), KeyPart(KeySource.ACCOUNT))
    routing = table(weighted(a=5_000, b=5_000), key_parts=parts)
    assert routing.sticky_key(Asked(headers={b"x-a": b"1"}, account="x")) == routing.sticky_key(
        Asked(headers={b"x-a": b"1"}, account="y")
    )
    assert routing.sticky_key(Asked(account="x")) != routing.sticky_key(Asked(account="y"))


def test_an_idempotency_key_beats_the_user_and_belongs_to_its_account() -> None:
    routing = table(weighted(a=5_000, b=5_000))
    one = routing.sticky_key(Asked(headers={b"x-user-id": b"u1"}), b"key")
    assert one == routing.sticky_key(Asked(headers={b"x-user-id": b"u2"}), b"key")
    assert one != routing.sticky_key(Asked(account="other"), b"key")


# Rules.


def test_the_first_rule_that_matches_wins() -> None:
    weights = weighted(a=10_000, b=0)
    b = Weights(entries("a", "b"), {"b": WEIGHT_TOTAL})
    qa = Rule("qa", b, headers=((b"x-canary", Match(MatchKind.EXACT, "b")),))
    early = Rule(
        "early",
        b,
        account=Match(MatchKind.IN, texts=frozenset({"acme"})),
        image=Match(MatchKind.PREFIX, "ocr/"),
    )
    routing = table(weights, rules=(qa, early))
    assert routing.rule_for(Asked(headers={b"x-canary": b"b"})) is qa
    assert routing.rule_for(Asked(headers={b"x-canary": b"c"})) is None
    assert routing.rule_for(Asked(account="acme", image="ocr/x")) is early
    assert routing.rule_for(Asked(account="acme", image="cat")) is None
    assert routing.rule_for(Asked(account="acme", image=None)) is None
    chosen = chooser(table(weights, rules=(qa,))).choose(RUN, Asked(headers={b"x-canary": b"b"}), None, 0.0)
    assert (chosen.rule, chosen.home and chosen.home.name) == (qa, "b")


# Choosing among what is there.


def chooser(routing: Table, loads: Mapping[str, Idle] | None = None) -> Chooser:
    board = HealthBoard(HealthPolicy())
    board.adopt(routing.sets, routing.health)
    return Chooser(routing, board, loads or {name: Idle() for name in routing.sets})


def test_a_draining_set_gets_no_new_work_but_its_own_tasks() -> None:
    sets = entries("a", "b", states={"a": SetState.DRAIN})
    routing = Table(version=1, sets=sets, default=Weights(sets, {"a": 9_000, "b": 1_000}))
    choosing = chooser(routing)
    chosen = [choosing.choose(RUN, Asked(), None, 0.0) for _ in range(100)]
    assert {choice.entry.name for choice in chosen if choice.entry} == {"b"}
    assert "a" in {choice.home.name for choice in chosen if choice.home}
    owner = choosing.choose(Purpose(Destination.OWNER, RequestKind.SAFE, "a"), Asked(), None, 0.0)
    assert owner.entry is sets["a"]


def test_with_every_set_away_there_is_a_problem_that_says_nothing_ran() -> None:
    sets = entries("a", states={"a": SetState.MAINT})
    choosing = chooser(Table(version=1, sets=sets, default=Weights(sets, {"a": WEIGHT_TOTAL})))
    choice = choosing.choose(RUN, Asked(), None, 0.0)
    assert choice.problem is not None
    assert (choice.problem.name, choice.problem.executed) == ("no-set", False)


def test_a_full_set_is_passed_over() -> None:
    sets = entries("a", "b", max_inflight=2)
    routing = Table(version=1, sets=sets, default=Weights(sets, {"a": 9_999, "b": 1}))
    loads = {"a": Idle(2), "b": Idle(1)}
    choosing = chooser(routing, loads)
    assert {choosing.choose(RUN, Asked(), None, 0.0).entry for _ in range(20)} == {sets["b"]}
    loads["b"].inflight = 2
    problem = choosing.choose(RUN, Asked(), None, 0.0).problem
    assert problem is not None
    assert problem.name == "sets-full"


def test_a_rule_may_fall_back_or_fail_when_its_set_is_down() -> None:
    sets = entries("a", "b")
    to_b = Weights(sets, {"b": WEIGHT_TOTAL})
    for if_down, expected in ((IfDown.DEFAULT, "a"), (IfDown.FAIL, "b")):
        rule = Rule("r", to_b, if_down, path=Match(MatchKind.PREFIX, "/"))
        routing = Table(version=1, sets=sets, default=Weights(sets, {"a": WEIGHT_TOTAL}), rules=(rule,))
        choosing = chooser(routing)
        choosing.board.failed("b", 0.0, refused=True)
        entry = choosing.choose(RUN, Asked(), None, 0.0).entry
        assert entry is not None
        assert entry.name == expected


def test_a_retry_goes_to_a_set_not_tried_and_never_to_weight_zero() -> None:
    sets = entries("a", "b", "c")
    routing = Table(version=1, sets=sets, default=Weights(sets, {"a": 5_000, "b": 5_000, "c": 0}))
    choosing = chooser(routing)
    choice = choosing.choose(RUN, Asked(), None, 0.0)
    assert choice.entry is not None
    other = choosing.another(choice, frozenset({choice.entry.name}), 0.0)
    assert other is not None
    assert {choice.entry.name, other.name} == {"a", "b"}
    assert choosing.another(choice, frozenset({"a", "b"}), 0.0) is None
