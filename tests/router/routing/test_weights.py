"""Weights when there are many, and what health leaves of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from router.routing.weights import WEIGHT_TOTAL, SetEntry, Weights, key_hash

KEYS = [key_hash(b"user-%d" % number) for number in range(400)]


def weights(shares: dict[str, int], exact: dict[str, float] | None = None) -> Weights:
    return Weights({name: SetEntry(name, "h", 80) for name in shares}, shares, exact)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 4), st.integers(0, 2**32))
def test_many_sets_of_few_weights_are_chosen_as_if_one_by_one(count: int, kinds: int, seed: int) -> None:
    many = weights({f"s{number}": 1 + number % kinds * 7 for number in range(count)})
    for key in KEYS[:40]:
        home = many.home(key ^ seed)
        assert home is not None
        assert home is many.among(key ^ seed, lambda entry: True)


def test_what_is_drawn_by_may_be_finer_than_what_is_shown() -> None:
    exact = weights({"a": 3333, "b": 3333, "c": 3334}, {"a": 1, "b": 1, "c": 1})
    even = weights({"a": 1, "b": 1, "c": 1})
    assert [exact.home(key) for key in KEYS] == [even.home(key) for key in KEYS]
    assert exact.percentages() == dict.fromkeys("abc", 100 / 3)
    assert exact.shares["c"] == 3334


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5000), min_size=2),
    st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    st.data(),
)
def test_who_loses_weight_loses_keys_and_nobody_else_moves(
    shares: dict[str, int], part: float, data: st.DataObject
) -> None:
    slow = data.draw(st.sampled_from(sorted(shares)))
    whole = weights(shares)
    left = whole.narrowed(lambda entry: part if entry.name == slow else 1.0)
    for key in KEYS[:100]:
        home, now = whole.home(key), left.home(key)
        assert home is not None
        assert now is not None
        assert now == home or home.name == slow
        assert part or now.name != slow


def keys_of_a(some: Weights) -> set[int]:
    homes = ((key, some.home(key)) for key in KEYS)
    return {key for key, home in homes if home is not None and home.name == "a"}


def test_a_growing_part_only_wins_keys_and_ends_as_it_was() -> None:
    whole = weights({"a": WEIGHT_TOTAL // 2, "b": WEIGHT_TOTAL // 2})
    had: set[int] = set()
    for tenth in range(11):
        part = {"a": tenth / 10, "b": 1.0}
        has = keys_of_a(whole.narrowed(lambda entry, part=part: part[entry.name]))  # type: ignore[misc]
        assert had <= has
        had = has
    assert had == keys_of_a(whole)


def test_percentages_leave_out_who_gets_nothing() -> None:
    some = weights({"a": 7500, "b": 2500, "c": 0})
    assert some.percentages() == {"a": 75.0, "b": 25.0}
    assert some.narrowed(lambda entry: float(entry.name == "b")).percentages() == {"b": 100.0}
    assert some.narrowed(lambda entry: 0.0).percentages() == {}
    assert some.narrowed(lambda entry: 0.0).home(KEYS[0]) is None
