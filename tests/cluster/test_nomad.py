"""A short crash run with slots that Nomad starts: what agents and operators do breaks no promise, either."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.books import faults_of, summary
from tests.cluster.crash import crash
from tests.cluster.faults import REGISTRAR, SET, Fault, Kind
from tests.cluster.network import why_not
from tests.cluster.nomad import NomadCluster
from tests.scheduler.launchers.nomad.agents import needs_nomad

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(bool(why := why_not()), reason=why or "-"),
    pytest.mark.timeout(1800),
]

LEASE_S = 4.0
"""Long enough for a slow machine to kill a node's programs within a quarter of it."""
FAULTS = [
    Fault(1.0, Kind.PURGE_JOB, "c1", 0.1, 0),
    Fault(2.0, Kind.RESTART_ALLOCATION, "c2", 0.1, 1),
    Fault(3.0, Kind.KILL_AGENT, "c1", 4.0, 2),
    Fault(4.0, Kind.STOP_JOB, "c2", 0.1, 3),
    Fault(6.0, Kind.KILL, REGISTRAR, 2.0, 4),
    Fault(9.0, Kind.DRAIN, "c2", 4.0, 5),
    Fault(11.0, Kind.KILL, SET, 1.0, 6),
    Fault(14.0, Kind.CUT, "c1", 7.0, 7),
    Fault(15.0, Kind.KILL_AGENT, "s1", 5.0, 8),
    Fault(17.0, Kind.KILL, "c2", 1.0, 9),
    Fault(20.0, Kind.STOP_ALLOCATION, "c2", 0.1, 10),
    Fault(23.0, Kind.FREEZE_NODE, "c1", 6.0, 11),
]
LENGTH_S = 30.0
SEED = 7


@pytest.fixture
def cluster(docker_host: str) -> Iterator[NomadCluster]:
    needs_nomad()
    # A short path, as sockets need.
    folder = Path(tempfile.mkdtemp(prefix="gcx"))
    folder.chmod(0o755)
    with NomadCluster(docker_host, folder, lease_s=LEASE_S, seed=SEED) as cluster:
        yield cluster
    shutil.rmtree(folder)


def test_books_are_right_after_faults_of_agents_and_jobs(
    cluster: NomadCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    began_at = time.monotonic()
    books = crash(cluster, FAULTS, LENGTH_S, SEED, print)
    found = summary(books)
    with capsys.disabled():
        print(f"\ncrash run of {time.monotonic() - began_at:.0f} s: {found}")
    assert faults_of(books) == []
    assert found["succeeded"] > 0
    assert found["programs seen"] > 0
