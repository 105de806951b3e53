"""Real agents for tests, and whether there can be any."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.nomad.agent import Agent, Ports
from ops.nomad.cluster import Cluster
from tests.ports import free_network, free_port

HERE_ADDRESS = "127.0.0.1"
CPU_SHARES = 100_000
NODE = "n1"
MEMORY_MIB = 8192
"""What the node of tests offers, whatever the machine has: so much CPU that no slot waits for it."""


def needs_nomad() -> None:
    """Skip the test, visibly, where there is no Nomad to try it on."""
    if shutil.which("nomad") is None:
        pytest.skip("nomad is not on PATH: the cluster's double is tried alone")


@contextmanager
def start_agent(folder: Path, docker_host: str, *, cpu_shares: int, acl: bool = False) -> Iterator[Agent]:
    """An agent on ports of its own, gone with its state in the end."""
    ports = Ports(free_port(), free_port(), free_port())
    agent = Agent(
        folder,
        docker_host,
        address=HERE_ADDRESS,
        ports=ports,
        cpu_shares=cpu_shares,
        memory_mib=MEMORY_MIB,
        node=NODE,
        acl=acl,
    )
    agent.start()
    try:
        yield agent
    finally:
        agent.wipe()


@contextmanager
def start_cluster(folder: Path, docker_host: str) -> Iterator[Cluster]:
    """Three servers and two clients at addresses of their own, gone with their state in the end."""
    cluster = Cluster(
        folder, docker_host, network=free_network(), cpu_shares=CPU_SHARES, memory_mib=MEMORY_MIB
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.wipe()
