"""Histories of faults: from the seed alone, and such that each fault is healed by its own end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.cluster.faults import Group, Kind, history, of_engine, of_nodes, of_nomad

NODES = of_nodes(["n1", "n2", "n3"])
NOMAD = [*of_nomad(["c1", "c2"], ["s1", "s2", "s3"]), of_engine()]


def test_a_seed_tells_the_history() -> None:
    assert history(7, NODES, 60, 2) == history(7, NODES, 60, 2)
    assert history(7, NODES, 60, 2) != history(8, NODES, 60, 2)


@pytest.mark.parametrize("groups", [NODES, NOMAD], ids=["nodes", "nomad"])
@pytest.mark.parametrize("seed", range(20))
def test_faults_come_in_order_end_in_time_and_never_meet_at_one_target(
    groups: list[Group], seed: int
) -> None:
    faults = history(seed, groups, 120, 2)
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(faults))
    assert all(fault.at_s + fault.lasts_s <= 120.01 for fault in faults)
    for target in {fault.target for fault in faults}:
        own = [fault for fault in faults if fault.target == target]
        assert all(earlier.at_s + earlier.lasts_s < later.at_s for earlier, later in pairwise(own))


@pytest.mark.parametrize("groups", [NODES, NOMAD], ids=["nodes", "nomad"])
def test_a_long_history_has_every_kind_for_each_target(groups: list[Group]) -> None:
    faults = history(1, groups, 36_000, 2)
    for group in groups:
        for target in group.targets:
            assert {fault.kind for fault in faults if fault.target == target} == set(group.kinds)


def test_every_kind_hits_somebody() -> None:
    assert {kind for group in (*NODES, *NOMAD) for kind in group.kinds} == set(Kind)
