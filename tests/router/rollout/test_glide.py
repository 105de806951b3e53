"""How fast weights may move."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from router.rollout.glide import FORCED_MOVES, MAX_MOVES, Load, next_weight
from router.routing.table import WEIGHT_TOTAL
from tests.router.rollout.release import SEEDED

weights = st.integers(0, WEIGHT_TOTAL)
loads = st.builds(Load, st.integers(0, 2_000), st.none() | st.integers(1, 1_000))


def way(weight: int, target: int, load: Load, warm: int = 0) -> list[int]:
    found = [weight]
    for left in range(MAX_MOVES, 0, -1):
        if found[-1] == target:
            break
        found.append(next_weight(found[-1], target, growing=[load], warm=warm, moves_left=left))
    return found


@SEEDED
@given(weights, weights, loads, weights)
def test_every_way_ends_in_time_and_never_turns(weight: int, target: int, load: Load, warm: int) -> None:
    found = way(weight, target, load, warm)
    assert found[-1] == target
    assert found == sorted(found, reverse=target < weight)


def test_without_limits_shares_double() -> None:
    assert way(10_000, 0, Load()) == [10_000, 9_500, 9_000, 8_000, 6_000, 2_000, 0]
    assert way(0, 10_000, Load()) == [0, 500, 1_000, 2_000, 4_000, 8_000, 10_000]


def test_what_is_little_goes_at_once() -> None:
    assert way(500, 0, Load()) == [500, 0]
    assert way(5_000, 0, Load()) == [5_000, 0]


def test_what_was_borne_moments_ago_is_borne_again() -> None:
    assert way(10_000, 0, Load(), warm=10_000) == [10_000, 0]
    assert way(10_000, 0, Load(), warm=9_000) == [10_000, 100, 0]


def test_a_set_without_room_gets_no_more_than_the_bound_on_time_demands() -> None:
    """Nothing for half a minute, as room may come; then evenly."""
    found = way(7_000, 0, Load(100, 100))
    steps = [old - new for old, new in pairwise(found)]
    assert steps == [0] * (MAX_MOVES - FORCED_MOVES) + [1_167, 1_167, 1_167, 1_167, 1_166, 1_166]
