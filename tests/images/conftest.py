"""Runs the sample images as plain containers, hardened like a slot, on the engine of the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.images import pictures
from ops.images.builder import NAMES, Builder
from ops.setup import engine

HARDENED = (
    *("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    *("--memory=512m", "--pids-limit=64", "--log-driver=none"),
)


@dataclass(frozen=True)
class Finished:
    """How a container ended: its exit code, its output, its complaints."""

    code: int
    out: bytes
    err: str


Run = Callable[..., Finished]


@pytest.fixture(scope="session")
def run() -> Run:
    """``run(IMAGE, *ARGUMENTS, stdin=BYTES)`` in a fresh container; the images are built if they are not."""
    host = engine.up()
    Builder(host).build(NAMES)
    environment = {**os.environ, "DOCKER_HOST": host}

    def run(image: str, *arguments: str, stdin: bytes = b"", options: tuple[str, ...] = ()) -> Finished:
        command = ["docker", "run", "--interactive", "--rm", *HARDENED, *options, image, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=50)
        return Finished(done.returncode, done.stdout, done.stderr.decode())

    return run


@pytest.fixture(scope="session")
def photograph() -> Path:
    return pictures.photograph()


@pytest.fixture(scope="session")
def page() -> Path:
    return pictures.page()
