"""Histories of faults: from the seed alone, and such that each fault is healed by its own end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.cluster.faults import OF_NODES, OF_THE_ROUTER, OF_THE_SET, ROUTER, SET, Kind, history

NODES = ["n1", "n2", "n3"]


def test_a_seed_tells_the_history() -> None:
    assert history(7, NODES, 60, 2) == history(7, NODES, 60, 2)
    assert history(7, NODES, 60, 2) != history(8, NODES, 60, 2)


@pytest.mark.parametrize("seed", range(20))
def test_faults_come_in_order_end_in_time_and_never_meet_at_one_target(seed: int) -> None:
    faults = history(seed, NODES, 120, 2)
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(faults))
    assert all(fault.at_s + fault.lasts_s <= 120.01 for fault in faults)
    for target in (SET, ROUTER, *NODES):
        own = [fault for fault in faults if fault.target == target]
        assert all(earlier.at_s + earlier.lasts_s < later.at_s for earlier, later in pairwise(own))


def test_a_long_history_has_every_kind_for_each_target() -> None:
    faults = history(1, NODES, 3600, 2)
    for target, kinds in {SET: OF_THE_SET, ROUTER: OF_THE_ROUTER, "n1": OF_NODES}.items():
        assert {fault.kind for fault in faults if fault.target == target} == set(kinds)
    assert set(OF_NODES) == set(Kind)
