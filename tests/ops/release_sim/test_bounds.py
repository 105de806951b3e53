"""The fewest requests that any test needs: by hand where that is easy, and never more than the router's own needs."""

from __future__ import annotations

from math import log

import pytest

from ops.release_sim.bounds import latency_requests, main, rate_requests
from ops.release_sim.play import play, summed
from router.rollout.kinds import KINDS


def test_beside_a_control_of_any_size_the_bound_is_that_of_one_known_rate() -> None:
    """One stream of 5.5 % errors against 2.5 %: the divergence is 0.0138."""
    growth = 0.055 * log(0.055 / 0.025) + 0.945 * log(0.945 / 0.975)
    assert rate_requests(0.055, 0.005, 0.02, 1e6, 1 / 640) == pytest.approx(log(640) / growth, rel=0.01)


def test_a_larger_control_and_a_smaller_margin_take_fewer_requests() -> None:
    by_control = [rate_requests(0.055, 0.005, 0.02, times) for times in (1.0, 3.0, 19.0)]
    assert by_control == sorted(by_control, reverse=True)
    assert rate_requests(0.055, 0.005, 0.0, 19.0) < by_control[-1] / 3
    assert latency_requests(1.5, 0.0, 19.0) < latency_requests(1.5, 0.25, 19.0) / 3


@pytest.mark.parametrize(("name", "canary"), [("errors +5 points", 0.055), ("errors +20 points", 0.205)])
def test_the_router_needs_a_few_times_the_bound_at_most(name: str, canary: float) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    found = summed(play(kind, seed) for seed in range(15))
    assert found.requests is not None
    assert found.requests <= 4 * rate_requests(canary, 0.005, 0.02, 19.0)


def test_the_program_prints_a_row_for_each_harm(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("harm")
    assert [row[:24].strip() for row in rows][:2] == ["all requests fail", "errors +20 points"]
