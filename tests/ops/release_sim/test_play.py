"""Simulated releases: the same seed gives the same release, and the figures sum up what happened."""

from __future__ import annotations

import pytest

from ops.release_sim.__main__ import main, wrong
from ops.release_sim.play import Ending, play, summed
from router.rollout.kinds import KINDS, Kind
from router.rollout.states import Phase


def kind(name: str) -> Kind:
    return next(each for each in KINDS if each.name == name)


def ended(phase: Phase, requests: int = 0, users: float = 0.0) -> Ending:
    return Ending(phase, float(requests), requests, users, "")


def test_the_same_seed_plays_the_same_release() -> None:
    assert play(kind("errors +20 points"), 3) == play(kind("errors +20 points"), 3)
    assert play(kind("errors +20 points"), 3) != play(kind("errors +20 points"), 4)


def test_the_sum_tells_shares_of_all_and_medians_of_those_aborted() -> None:
    found = summed(
        [
            ended(Phase.ABORTED, 10, 0.1),
            ended(Phase.ABORTED, 30, 0.3),
            ended(Phase.DONE, 999),
            ended(Phase.PAUSED, 999),
        ]
    )
    assert (found.aborted, found.promoted, found.paused) == (0.5, 0.25, 0.25)
    assert (found.requests, found.at_s, found.users) == (20, 20.0, 0.2)


def test_a_pause_is_wrong_for_no_kind() -> None:
    sick, healthy = kind("all requests fail"), kind("healthy")
    assert wrong(sick, ended(Phase.DONE))
    assert not wrong(sick, ended(Phase.ABORTED))
    assert wrong(healthy, ended(Phase.ABORTED))
    assert not any(wrong(each, ended(Phase.PAUSED)) for each in KINDS)


def test_the_program_prints_a_row_for_each_kind_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["release_sim", "--releases", "1", "--kind", "a return that fails"])
    main()
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("kind")
    assert row.startswith("a return that fails")
    assert "100.0%" in row


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("all requests fail", 15),
        ("all requests hang", 15),
        ("10 % hang for 300 s", 300),
        ("33 % hang for 900 s", 100),
        ("errors +20 points", 150),
    ],
)
def test_a_sick_canary_is_aborted_within_so_many_requests(name: str, within: int) -> None:
    found = summed(play(kind(name), seed) for seed in range(3))
    assert found.aborted == 1.0
    assert found.requests is not None
    assert found.requests <= within


def test_a_canary_with_a_twentieth_of_its_requests_open_is_never_promoted() -> None:
    for seed in range(2):
        ending = play(kind("5 % hang for 300 s"), seed, tick_s=5.0)
        assert ending.phase in (Phase.ABORTED, Phase.PAUSED), ending


def test_a_healthy_canary_is_promoted() -> None:
    assert play(kind("healthy"), 0, tick_s=5.0).phase is Phase.DONE
