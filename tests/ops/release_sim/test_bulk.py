"""The quick world: its counts have the right distributions, and its releases end as in the world in which each
request passes the real chooser."""

from __future__ import annotations

import random
from statistics import mean, median

import pytest

from ops.release_sim.bulk import binomial, poisson
from ops.release_sim.play import play, play_each
from router.rollout.kinds import KINDS, Kind


def kind(name: str) -> Kind:
    return next(each for each in KINDS if each.name == name)


@pytest.mark.parametrize("chance", [0.0, 0.005, 0.3, 0.9, 1.0])
def test_counts_of_what_happens_by_chance_have_the_mean_that_they_should(chance: float) -> None:
    rng = random.Random(1)
    found = [binomial(rng, 200, chance) for _ in range(2_000)]
    assert all(0 <= count <= 200 for count in found)
    # Five standard deviations of the mean.
    assert mean(found) == pytest.approx(200 * chance, abs=5 * (200 * chance * (1 - chance) / 2_000) ** 0.5)


@pytest.mark.parametrize("expected", [0.0, 0.5, 12.0, 400.0])
def test_arrivals_have_the_mean_that_they_should(expected: float) -> None:
    rng = random.Random(2)
    assert mean(poisson(rng, expected) for _ in range(2_000)) == pytest.approx(
        expected, abs=5 * (expected / 2_000) ** 0.5
    )


@pytest.mark.parametrize(
    "name", ["all requests fail", "all requests hang", "33 % hang for 900 s", "errors +20 points"]
)
def test_a_sick_canary_takes_as_many_requests_as_where_each_request_is_played(name: str) -> None:
    quick = [play(kind(name), seed) for seed in range(9)]
    each = [play_each(kind(name), seed) for seed in range(9)]
    assert {ending.phase for ending in quick} == {ending.phase for ending in each} == {"aborted"}
    found, expected = (median(ending.requests for ending in endings) for endings in (quick, each))
    assert expected / 1.6 - 4 <= found <= expected * 1.6 + 4
    assert median(ending.users for ending in quick) == pytest.approx(
        median(ending.users for ending in each), abs=0.01
    )


def test_a_healthy_release_is_judged_by_as_many_requests_as_where_each_is_played() -> None:
    quick, each = play(kind("healthy"), 0, tick_s=5.0), play_each(kind("healthy"), 0, tick_s=5.0)
    assert quick.phase == each.phase == "done"
    assert quick.requests == pytest.approx(each.requests, rel=0.1)
    assert quick.users == pytest.approx(each.users, rel=0.1)
