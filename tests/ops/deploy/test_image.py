"""The container image of the platform: a router and a set run from it, with as few rights as each needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container

from ops.deploy.image import VERSION_LABEL, build_image
from ops.setup import processes
from tests.ports import free_port

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("GC_TEST_ALL"), reason="builds an image of 240 MB: make test-all, make image"
    ),
]
PATIENCE_S = 240.0
SOCKET = "/var/run/docker.sock"

Start = Callable[..., Container]


@pytest.fixture(scope="module")
def image(docker_host: str) -> str:
    return build_image(docker_host)


@pytest.fixture
def start(engine: docker.DockerClient, image: str) -> Iterator[Start]:
    """Start containers of the image on the machine's network; all are removed in the end."""
    started: list[Container] = []

    def begin(*command: str, **options: Any) -> Container:
        container: Container = engine.containers.run(
            image, ["gcompute", *command], detach=True, network_mode="host", **options
        )
        started.append(container)
        return container

    yield begin
    for container in started:
        container.stop(timeout=60)
        container.remove(force=True)


def until_ready(url: str, container: Container) -> None:
    def ready() -> bool:
        try:
            return httpx.get(url, timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    assert processes.wait_until(ready, PATIENCE_S), container.logs().decode()


def test_a_router_and_a_set_from_the_image_run_a_task(
    start: Start, engine: docker.DockerClient, image: str, docker_host: str, tmp_path: Path
) -> None:
    set_port, router_port, admin_port = free_port(), free_port(), free_port()
    state = tmp_path / "state"
    (tmp_path / "set.yaml").write_text(
        f"name: image\nstate_dir: {state}\nslot_files: {tmp_path / 'files'}\ncores: 2\n"
        f"bind: 127.0.0.1:{set_port}\ndrain_notice_s: 0\n"
    )
    (tmp_path / "router.yaml").write_text(
        f'version: 1\nsets:\n  image: {{url: "http://127.0.0.1:{set_port}", state: ready}}\n'
        "default:\n  weights: {image: 100}\n"
    )
    # As in ops/deploy/compose.yaml. The set is on the machine's engine, and tells its slots by their processes.
    own = start(
        "set",
        str(tmp_path / "set.yaml"),
        user="0",
        pid_mode="host",
        cgroupns="host",
        read_only=True,
        cap_drop=["all"],
        cap_add=["DAC_OVERRIDE", "FOWNER", "CHOWN", "SYS_PTRACE"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": ""},
        environment={"DOCKER_HOST": f"unix://{SOCKET}"},
        volumes=[
            f"{tmp_path}:{tmp_path}",
            "/sys/fs/cgroup:/sys/fs/cgroup",
            f"{docker_host.removeprefix('unix://')}:{SOCKET}",
        ],
    )
    router = start(
        "router",
        "start",
        "/etc/general-compute/router.yaml",
        *("--bind", f"127.0.0.1:{router_port}", "--admin-bind", f"127.0.0.1:{admin_port}"),
        *("--state-dir", "/var/lib/general-compute"),
        read_only=True,
        cap_drop=["all"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "", "/var/lib/general-compute": "uid=10001"},
        volumes=[f"{tmp_path / 'router.yaml'}:/etc/general-compute/router.yaml:ro"],
    )
    until_ready(f"http://127.0.0.1:{set_port}/readyz", own)
    until_ready(f"http://127.0.0.1:{admin_port}/readyz", router)
    answer = httpx.post(
        f"http://127.0.0.1:{router_port}/v1/run/cat:1",
        content=b"from a container",
        params={"queue_timeout_s": 200},
        timeout=PATIENCE_S,
        trust_env=False,
    )
    assert (answer.status_code, answer.content) == (200, b"from a container"), (
        answer.text + own.logs().decode()
    )
    build = httpx.get(f"http://127.0.0.1:{set_port}/readyz", timeout=PATIENCE_S, trust_env=False).json()[
        "build"
    ]
    assert build == engine.images.get(image).labels[VERSION_LABEL]


def test_the_image_is_nobodys_by_default_and_shows_its_commands(
    engine: docker.DockerClient, image: str
) -> None:
    said = engine.containers.run(image, ["id", "-u"], remove=True, network_mode="none")
    assert said.strip() == b"10001"
    shown = engine.containers.run(image, remove=True, network_mode="none")
    assert b"Usage: gcompute" in shown
