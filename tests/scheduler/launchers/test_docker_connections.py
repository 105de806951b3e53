"""How many connections a set keeps to its engine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from scheduler.launchers.docker_config import DockerSettings
from scheduler.launchers.docker_engine import Engine

pytestmark = pytest.mark.docker

CALLS = 60


def connections(host: str) -> int:
    """Sockets of this process that are connected, if the engine is at a unix socket."""
    if not host.startswith("unix://"):
        pytest.skip(f"{host} is no unix socket")
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += os.readlink(each).startswith("socket:")
    return found


def test_a_client_keeps_one_connection_whatever_it_called(
    docker_host: str, docker_settings: DockerSettings
) -> None:
    before = connections(docker_host)
    client = Engine(docker_settings).new_client(60)
    for number in range(CALLS):
        with pytest.raises(docker.errors.NotFound):
            client.inspect_container(f"gc-test-none-{number}")
    assert client.ping() is True
    assert connections(docker_host) == before + 1
    client.close()
    assert connections(docker_host) == before
