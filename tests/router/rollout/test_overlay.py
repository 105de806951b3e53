"""The rollout's weights over the file's: totals, the least movement, no drift."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from router.rollout.overlay import overlay, rounded
from router.routing.table import WEIGHT_TOTAL, SetEntry, Table, Weights, key_hash
from tests.router.rollout.release import SEEDED

KEYS = [key_hash(b"user-%d" % number) for number in range(4_000)]


def table(shares: dict[str, int]) -> Table:
    sets = {name: SetEntry(name, "h", 80) for name in shares}
    return Table(version=1, sets=sets, default=Weights(sets, shares))


def homes(live: Table) -> list[str]:
    found = []
    for key in KEYS:
        home = live.default.home(key)
        assert home is not None
        found.append(home.name)
    return found


@st.composite
def shares(draw: st.DrawFn) -> dict[str, int]:
    cuts = sorted(draw(st.lists(st.integers(0, WEIGHT_TOTAL), min_size=1, max_size=5)))
    parts = [high - low for low, high in zip([0, *cuts], [*cuts, WEIGHT_TOTAL], strict=True)]
    return {f"s{index}": part for index, part in enumerate(parts)}


@SEEDED
@given(shares(), st.integers(0, WEIGHT_TOTAL))
def test_totals_hold_and_the_canary_has_exactly_its_weight(base: dict[str, int], weight: int) -> None:
    file = table(base)
    live = overlay(file, "s0", weight)
    assert sum(live.default.shares.values()) == WEIGHT_TOTAL
    assert file.default.shares == base, "the file's table is never changed"
    if base["s0"] < WEIGHT_TOTAL:
        # Somebody else with a share may keep the last hundredth, so that it does not look like nothing.
        assert abs(live.default.shares["s0"] - weight) <= len(base)
        assert (live.default.shares["s0"] == 0) == (weight == 0)
    if weight == 0 and base["s0"] < WEIGHT_TOTAL:
        assert "s0" not in {entry.name for entry in live.default.entries}


@settings(SEEDED, max_examples=25)
@given(shares(), st.lists(st.integers(0, WEIGHT_TOTAL), min_size=2, max_size=4))
def test_nobody_moves_between_other_sets_and_nobody_drifts(base: dict[str, int], weights: list[int]) -> None:
    """Between two steps a key moves to or from the canary, never between the others. Its place depends on the weight
    alone, not on the steps before: sticky keys do not drift to 100 %."""
    file = table(base)
    if base["s0"] == WEIGHT_TOTAL:
        return
    before, last = homes(overlay(file, "s0", weights[0])), weights[0]
    for weight in weights[1:]:
        now = homes(overlay(file, "s0", weight))
        for old, new in zip(before, now, strict=True):
            if old != new:
                assert "s0" in (old, new)
                assert (new == "s0") == (weight > last)
        before, last = now, weight
    assert before == homes(overlay(table(base), "s0", weights[-1]))


def test_what_cannot_be_laid_over_is_left_as_it_is() -> None:
    file = table({"a": 9_500, "b": 500})
    assert overlay(file, "gone", 100) is file
    assert overlay(file, "b", 500) is file
    alone = table({"a": 0, "b": WEIGHT_TOTAL})
    assert overlay(alone, "b", 100) is alone, "nobody would be left to serve the rest"


def test_a_set_that_gets_something_never_looks_like_nothing() -> None:
    assert rounded({"a": 10_000_000, "b": 1}) == {"a": 9_999, "b": 1}
