"""Fixtures: a node's folder, images that try to trick the program which dresses their slots, and those slots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import docker
import pytest
from docker import APIClient

from ops.setup.engine import PrivateEngine
from tests.scheduler.launchers.rig import ImageMaker
from tests.sets.dresser.slots import Node, Slot

StartSlot = Callable[..., Slot]


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    if os.geteuid() != 0:
        pytest.skip("slots are dressed by root: run as root")
    return Node(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient) -> Iterator[ImageMaker]:
    maker = ImageMaker(engine.api)
    yield maker
    maker.clean()


@pytest.fixture(scope="session")
def userns_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[APIClient]:
    """An engine whose containers run in a user namespace."""
    if os.geteuid() != 0:
        pytest.skip("an engine of its own needs root")
    private = PrivateEngine(tmp_path_factory.mktemp("userns"), userns=True)
    private.start()
    client = APIClient(base_url=private.layout.host, timeout=60)
    yield client
    client.close()
    private.stop()


@pytest.fixture
def start_slot(engine: docker.DockerClient, node: Node) -> Iterator[StartSlot]:
    """`start_slot(image, *places)` gives a slot that runs and is not dressed."""
    with ExitStack() as started:

        def start(image: str, *places: str, word: str = "") -> Slot:
            slot = Slot(engine.api, node, image, places, word)
            started.callback(slot.remove)
            return slot

        yield start
