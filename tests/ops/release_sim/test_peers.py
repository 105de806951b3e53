"""The peers' rules on the same requests: a yardstick, and the faults that the router's rule does not have."""

from __future__ import annotations

import pytest

from ops.release_sim.peers import Flagger, Kayenta, Peer
from ops.release_sim.play import Ending, play, play_peer
from router.rollout.kinds import KINDS
from router.rollout.states import Phase


def ended(peer: type[Peer], name: str, seed: int = 0) -> Ending:
    return play_peer(peer, next(kind for kind in KINDS if kind.name == name), seed)


@pytest.mark.parametrize("peer", [Flagger, Kayenta])
def test_a_canary_that_fails_is_aborted_at_its_first_step(peer: type[Peer]) -> None:
    ending = ended(peer, "all requests fail")
    assert ending.phase is Phase.ABORTED
    assert ending.users < 0.05
    assert ending.requests > play(KINDS[0], 0).requests


@pytest.mark.parametrize("peer", [Flagger, Kayenta])
def test_the_same_seed_is_judged_alike(peer: type[Peer]) -> None:
    assert ended(peer, "errors +5 points", 3) == ended(peer, "errors +5 points", 3)


def test_kayenta_promotes_what_is_healthy_step_by_step() -> None:
    ending = ended(Kayenta, "healthy")
    assert ending.phase is Phase.DONE
    assert ending.at_s >= 900.0


def test_kayenta_does_not_see_requests_that_hang_longer_than_the_release() -> None:
    """Why the router counts requests while they are open."""
    assert ended(Kayenta, "33 % hang for 900 s").phase is Phase.DONE


def test_flagger_knows_no_margin_beside_control() -> None:
    """Why the router compares: 1.5 % of errors are more than a fixed bound, and no more than a margin of 2 points."""
    assert ended(Flagger, "healthy, errors +1 point").phase is Phase.ABORTED
