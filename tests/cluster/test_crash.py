"""A short crash run of a real cluster: after the faults, nothing is lost, doubled, mixed, billed twice or left over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.books import faults_of, summary
from tests.cluster.cluster import Cluster
from tests.cluster.crash import crash
from tests.cluster.faults import ROUTER, SET, Fault, Kind
from tests.cluster.network import why_not

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(bool(why := why_not()), reason=why or "-"),
    pytest.mark.timeout(900),
]

LEASE_S = 4.0
"""Long enough for a slow machine to kill a node's programs within a quarter of it."""
FAULTS = [
    Fault(1.0, Kind.CUT, "n1", 7.0, 0),
    Fault(2.0, Kind.KILL_SLOT, "n2", 0.1, 1),
    Fault(3.0, Kind.KILL, "n2", 1.0, 2),
    Fault(9.0, Kind.BAD_WIRE, "n2", 4.0, 3),
    Fault(10.0, Kind.KILL, SET, 1.0, 4),
    Fault(14.0, Kind.FREEZE_NODE, "n1", 6.0, 5),
    Fault(15.0, Kind.RESTART, "n2", 1.0, 6),
    Fault(17.0, Kind.KILL, ROUTER, 0.5, 7),
]
"""One of each that shows a promise of its own, most of them while another one lasts."""
LENGTH_S = 21.0
SEED = 7


@pytest.fixture
def cluster(docker_host: str, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(docker_host, tmp_path, nodes=("n1", "n2"), lease_s=LEASE_S, seed=SEED) as cluster:
        yield cluster


def test_books_are_right_after_faults_of_wires_nodes_slots_and_the_set(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    began_at = time.monotonic()
    books = crash(cluster, FAULTS, LENGTH_S, SEED, print)
    found = summary(books)
    with capsys.disabled():
        print(f"\ncrash run of {time.monotonic() - began_at:.0f} s: {found}")
    assert faults_of(books) == []
    assert found["succeeded"] > 0
    assert found["programs seen"] > 0
