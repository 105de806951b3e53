"""The container image of the platform: a router and a set run from it, with as few rights as each needs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml
from docker.models.containers import Container

from ops.deploy.image import VERSION_LABEL, build_image
from ops.setup import processes
from tests.conftest import ROOT
from tests.ports import free_port

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("GC_TEST_ALL"), reason="builds an image of 240 MB: make test-all, make image"
    ),
]
PATIENCE_S = 240.0
COMPOSE = ROOT / "ops/deploy/compose.yaml"


@pytest.fixture(scope="module")
def image(docker_host: str) -> str:
    return build_image(docker_host)


class Services:
    """The services of the compose file as containers with the same rights, on ports and folders of the test's own."""

    def __init__(self, engine: docker.DockerClient, image: str, docker_host: str, folder: Path) -> None:
        self.engine = engine
        self.image = image
        self.ports = {number: free_port() for number in ("8101", "8102", "8080", "8081")}
        self.volume = f"gc-test-{uuid.uuid4().hex}"
        self.started: list[Container] = []
        here = {
            **{f"127.0.0.1:{number}": f"127.0.0.1:{port}" for number, port in self.ports.items()},
            "/var/lib/general-compute-a": f"{folder}/state-a",
            "/var/lib/general-compute-b": f"{folder}/state-b",
            "./compose:": f"{folder}/compose:",
            "/var/run/docker.sock:": f"{docker_host.removeprefix('unix://')}:",
            "router-state:": f"{self.volume}:",
        }

        def moved(text: str) -> str:
            for before, after in here.items():
                text = text.replace(before, after)
            return text

        (folder / "compose").mkdir()
        for file in (ROOT / "ops/deploy/compose").iterdir():
            (folder / "compose" / file.name).write_text(moved(file.read_text()))
        self.services: dict[str, Any] = yaml.safe_load(moved(COMPOSE.read_text()))["services"]

    def start(self, name: str) -> Container:
        """Start a service. An option that the test does not know fails it: nobody would have tried it."""
        service = {**self.services[name]}
        for handled in ("image", "restart", "logging", "stop_grace_period"):
            del service[handled]
        container: Container = self.engine.containers.run(
            self.image,
            service.pop("command"),
            detach=True,
            pid_mode=service.pop("pid", None),
            cgroupns=service.pop("cgroup", None),
            tmpfs=dict.fromkeys(service.pop("tmpfs"), ""),
            **service,
        )
        self.started.append(container)
        return container

    def end(self) -> None:
        for container in self.started:
            container.stop(timeout=100)
            container.remove(force=True)
        for volume in self.engine.volumes.list(filters={"name": self.volume}):
            volume.remove(force=True)


@pytest.fixture
def services(engine: docker.DockerClient, image: str, docker_host: str, tmp_path: Path) -> Iterator[Services]:
    made = Services(engine, image, docker_host, tmp_path)
    yield made
    made.end()


def until_ready(url: str, container: Container) -> None:
    def ready() -> bool:
        try:
            return httpx.get(url, timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    assert processes.wait_until(ready, PATIENCE_S), container.logs().decode()


def test_the_router_and_both_sets_of_the_compose_file_run_tasks(services: Services) -> None:
    sets = {name: services.start(f"set-{name}") for name in ("a", "b")}
    router = services.start("router")
    until_ready(f"http://127.0.0.1:{services.ports['8101']}/readyz", sets["a"])
    until_ready(f"http://127.0.0.1:{services.ports['8102']}/readyz", sets["b"])
    until_ready(f"http://127.0.0.1:{services.ports['8081']}/readyz", router)
    for number in ("8101", "8102", "8080"):
        answer = httpx.post(
            f"http://127.0.0.1:{services.ports[number]}/v1/run/cat:1",
            content=b"from a container",
            params={"queue_timeout_s": 200},
            timeout=PATIENCE_S,
            trust_env=False,
        )
        said = answer.text + "".join(container.logs().decode() for container in sets.values())
        assert (answer.status_code, answer.content) == (200, b"from a container"), said
    url = f"http://127.0.0.1:{services.ports['8101']}/readyz"
    build = httpx.get(url, timeout=PATIENCE_S, trust_env=False).json()["build"]
    assert build == services.engine.images.get(services.image).labels[VERSION_LABEL]


def test_the_image_is_nobodys_by_default_and_shows_its_commands(
    engine: docker.DockerClient, image: str
) -> None:
    said = engine.containers.run(image, ["id", "-u"], remove=True, network_mode="none")
    assert said.strip() == b"10001"
    shown = engine.containers.run(image, remove=True, network_mode="none")
    assert b"Usage: gcompute" in shown
