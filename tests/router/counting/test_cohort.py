"""Cohorts: equal in size, independent of the choice, nested, the same everywhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.counting.cohort import Cohort, Cohorts
from router.rollout.overlay import overlay
from router.routing.table import SetEntry, Table, Weights, key_hash
from tests.router.rollout.release import SEEDED

KEYS = [key_hash(b"user-%d" % number) for number in range(60_000)]


def table(**shares: int) -> Table:
    sets = {name: SetEntry(name, "h", 80) for name in shares}
    return Table(version=1, sets=sets, default=Weights(sets, shares))


def assigned(live: Table, canary: str = "b") -> dict[int, tuple[str, Cohort]]:
    cohorts = Cohorts(canary, live.default.shares)
    found = {}
    for key in KEYS:
        home = live.default.home(key)
        assert home is not None
        found[key] = (home.name, cohorts.of(home.name, key))
    return found


def sizes(live: Table) -> tuple[int, int]:
    cohorts = [cohort for _, cohort in assigned(live).values()]
    return cohorts.count(Cohort.CANARY), cohorts.count(Cohort.CONTROL)


@pytest.mark.parametrize("weight", [100, 500, 3_000, 5_000, 7_000, 9_900])
def test_both_cohorts_are_of_one_size_at_every_weight(weight: int) -> None:
    canary, control = sizes(overlay(table(a=10_000, b=0), "b", weight))
    expected = len(KEYS) * min(weight, 10_000 - weight) / 10_000
    # Four standard deviations of a binomial.
    assert abs(canary - expected) < 4 * expected**0.5
    assert abs(control - expected) < 4 * expected**0.5


def test_control_comes_from_every_old_set_in_proportion() -> None:
    found = assigned(overlay(table(a=6_000, c=4_000, b=0), "b", 1_000))
    control = [name for name, cohort in found.values() if cohort is Cohort.CONTROL]
    assert 0.55 < control.count("a") / len(control) < 0.65
    assert "b" not in control


def test_a_growing_step_keeps_the_control_keys_that_it_had() -> None:
    base = table(a=10_000, b=0)
    small, large = assigned(overlay(base, "b", 500)), assigned(overlay(base, "b", 1_000))
    before = {key for key, (_, cohort) in small.items() if cohort is Cohort.CONTROL}
    now = {key for key, (_, cohort) in large.items() if cohort is Cohort.CONTROL}
    taken = {key for key, (home, _) in large.items() if home == "b"}
    assert before - taken <= now


def test_nobody_is_compared_where_there_is_nobody_to_compare_with() -> None:
    assert sizes(table(a=10_000, b=0)) == (0, 0)
    # At 100 % there is no control, and the canary is watched whole.
    assert sizes(overlay(table(a=9_500, b=500), "b", 10_000)) == (len(KEYS), 0)


def test_another_process_assigns_alike() -> None:
    code = (
        "from router.counting.cohort import Cohorts; from router.routing.table import key_hash\n"
        "c = Cohorts('b', {'a': 9000, 'b': 1000})\n"
        "print(''.join(c.of('a', key_hash(b'user-%d' % n))[2] for n in range(2000)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    cohorts = Cohorts("b", {"a": 9_000, "b": 1_000})
    assert said.strip() == "".join(cohorts.of("a", key)[2] for key in KEYS[:2000])


@SEEDED
@given(st.integers(1, 9_999), st.integers(0, 2**64 - 1))
def test_a_request_is_in_the_cohort_of_its_home_or_in_none(weight: int, key: int) -> None:
    cohorts = Cohorts("b", {"a": 10_000 - weight, "b": weight})
    assert cohorts.of("b", key) in (Cohort.CANARY, Cohort.REST)
    assert cohorts.of("a", key) in (Cohort.CONTROL, Cohort.REST)
