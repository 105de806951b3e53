"""The hostile programs as images: one static binary, run as root and as a USER of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.conftest import SetProcess, StartSet

PROGRAMS = Path(__file__).with_name("programs")
FLAGS = ("-std=gnu11", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result")
ROOT_IMAGE = "gc-test/hostile:root"
USER_IMAGE = "gc-test/hostile:user"
MAX_FILE_MIB = 8
MAX_FILES_MIB = 16


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


@pytest.fixture(scope="session")
def hostile_images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("hostile")
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
def hostile_set(start_set: StartSet, hostile_images: None) -> SetProcess:
    return start_set(
        "thostile",
        f"max_slots: 8\nmax_stdout_mib: 64\nmax_file_mib: {MAX_FILE_MIB}\nmax_files_mib: {MAX_FILES_MIB}\n",
    )
