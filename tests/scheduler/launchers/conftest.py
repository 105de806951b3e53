"""Fixtures of the launcher tests: a real engine, images of our own making, and a launcher per kind."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from docker import APIClient
from docker.utils import kwargs_from_env

from ops.nomad.agent import Agent
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from tests.conftest import SetProcess, StartSet
from tests.scheduler.launchers.nomad.agents import CPU_SHARES, needs_nomad, start_agent
from tests.scheduler.launchers.nomad.stand import NomadDoubleStand, NomadStand
from tests.scheduler.launchers.rig import ImageMaker, Rig, folder_of, installation_of
from tests.scheduler.launchers.stands import DockerStand, FakeStand, Stand
from tests.scheduler.registries import docker_registry

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def engine_host() -> str:
    """The engine that `make test` found or started. Without one these tests fail: they never skip."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


@pytest.fixture(scope="session")
def client(engine_host: str) -> Iterator[APIClient]:
    """A client of the tests' own, beside that of the launcher."""
    options = kwargs_from_env(environment={**os.environ, "DOCKER_HOST": engine_host})
    client = APIClient(**options, version="auto", timeout=60)
    yield client
    client.close()


@pytest.fixture(scope="session")
def probe_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the guest, static."""
    binary = tmp_path_factory.mktemp("probe") / "probe"
    subprocess.run(
        ["cc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", binary, HERE / "probe.c"], check=True
    )
    return binary


@pytest.fixture(scope="session")
def images(client: APIClient) -> Iterator[ImageMaker]:
    maker = ImageMaker(client)
    yield maker
    maker.clean()


@pytest.fixture(scope="session")
def plain_image(images: ImageMaker) -> str:
    """An image with nothing but an entrypoint."""
    return images.make('ENTRYPOINT ["/bin/algorithm", "-x"]', 'CMD ["one", "two"]')


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry of our own on loopback."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def own_set(images: ImageMaker, start_set: StartSet) -> Iterator[SetProcess]:
    """A set for a module's tests; it is gone, with all its slots, before the images are removed."""
    process = start_set("tlaunchers")
    yield process
    process.stop()


@pytest.fixture
def set_name() -> str:
    return f"test{uuid.uuid4().hex[:8]}"


@pytest.fixture
def docker_settings(set_name: str, engine_host: str, probe_binary: Path) -> DockerSettings:
    return DockerSettings(
        set_name=set_name,
        installation=installation_of(set_name),
        guest_binary=probe_binary,
        docker_host=engine_host,
        tmp_mib=8,
        shm_mib=4,
        writable_mib=4,
        inodes=100,
        pids_limit=16,
    )


@pytest.fixture(scope="session")
def agent(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A Nomad agent, server and client, where `nomad` is on PATH."""
    needs_nomad()
    with start_agent(tmp_path_factory.mktemp("agent"), docker_host, cpu_shares=CPU_SHARES) as agent:
        yield agent


DOCKER = pytest.mark.docker


@pytest.fixture(
    params=[
        pytest.param("docker", marks=DOCKER),
        "double",
        pytest.param("nomad", marks=DOCKER),
        "double of nomad",
    ]
)
async def stand(request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    """A launcher, open. Tests that take this fixture hold for every kind of launcher."""
    stand: Stand
    if request.param == "docker":
        stand = DockerStand(request.getfixturevalue("docker_settings"), request.getfixturevalue("images"))
    elif request.param == "double":
        stand = FakeStand()
    elif request.param == "nomad":
        parts = [request.getfixturevalue(name) for name in ("agent", "images", "engine_host", "probe_binary")]
        stand = NomadStand(request.getfixturevalue("set_name"), *parts)
    else:
        stand = NomadDoubleStand(request.getfixturevalue("set_name"))
    await stand.prepare()
    await stand.launcher.open()
    yield stand
    await stand.close()


@pytest.fixture
async def rig(docker_settings: DockerSettings) -> AsyncIterator[Rig]:
    """A launcher on a Docker engine, open, and its slots from the inside."""
    gone: list[tuple[str, str]] = []
    launcher = DockerLauncher(
        docker_settings, folder_of, lambda slot_id, reason: gone.append((slot_id, reason))
    )
    await launcher.open()
    rig = Rig(launcher, gone)
    yield rig
    await launcher.close()
    rig.close()
