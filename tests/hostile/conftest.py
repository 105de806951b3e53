"""The hostile programs as images: one static binary, run as root and as a USER of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from ops.setup.engine import PrivateEngine
from tests.conftest import SetProcess, StartSet

PROGRAMS = Path(__file__).with_name("programs")
FLAGS = ("-std=gnu11", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result")
ROOT_IMAGE = "gc-test/hostile:root"
USER_IMAGE = "gc-test/hostile:user"
MAX_FILE_MIB = 8
MAX_FILES_MIB = 16
SETTINGS = f"max_slots: 8\nmax_stdout_mib: 64\nmax_file_mib: {MAX_FILE_MIB}\nmax_files_mib: {MAX_FILES_MIB}\n"


def build_program(folder: Path) -> Path:
    """Compile the programs into one binary."""
    binary = folder / "hostile"
    sources = sorted(str(source) for source in PROGRAMS.glob("*.c"))
    subprocess.run(["cc", *FLAGS, "-o", str(binary), *sources], check=True)
    return binary


def cases(binary: Path) -> list[dict[str, str]]:
    """What the binary can try."""
    listed = subprocess.run([binary, "list"], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in listed.stdout.splitlines()]


@contextmanager
def hostile_images(engine: docker.DockerClient, folder: Path) -> Iterator[None]:
    """The images on an engine, made from nothing, and removed again."""
    build_program(folder)
    (folder / "content").write_bytes(b"of the image\n")
    (folder / "content").chmod(0o666)
    for tag, user in ((ROOT_IMAGE, "0"), (USER_IMAGE, "12345:12345")):
        (folder / "Dockerfile").write_text(
            "FROM scratch\nCOPY hostile /hostile\nCOPY content /held/content\nVOLUME /held\n"
            f'USER {user}\nENTRYPOINT ["/hostile"]\n'
        )
        engine.images.build(path=str(folder), tag=tag, rm=True)
    yield
    for tag in (ROOT_IMAGE, USER_IMAGE):
        engine.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def hostile_set(
    start_set: StartSet, engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SetProcess]:
    with hostile_images(engine, tmp_path_factory.mktemp("hostile")):
        yield start_set("thostile", SETTINGS)


@pytest.fixture(scope="session")
def userns_set(start_set: StartSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetProcess]:
    """A set on a private engine of its own, whose containers run in a user namespace."""
    if os.geteuid() != 0:
        pytest.skip("a private engine needs root, as make test in CI has")
    private = PrivateEngine(tmp_path_factory.mktemp("userns"), userns=True)
    private.start()
    client = docker.DockerClient(base_url=private.layout.host, timeout=60)
    try:
        with hostile_images(client, tmp_path_factory.mktemp("hostile")):
            running = start_set("tuserns", f"{SETTINGS}docker_host: {private.layout.host}\n")
            yield running
            running.stop()
    finally:
        client.close()
        private.stop()
