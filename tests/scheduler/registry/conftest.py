"""Fixtures of the registry tests: a scripted registry, a host that nobody may contact, and the images of both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from scheduler.registry.allowed import AllowList
from scheduler.registry.images import RegistryImages
from scheduler.registry.settings import RegistryConfig
from tests.scheduler.registries import ScriptedRegistry


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    scripted = ScriptedRegistry()
    yield scripted
    scripted.close()


@pytest.fixture
def elsewhere() -> Iterator[ScriptedRegistry]:
    """Another host. A test says whether it may be contacted."""
    scripted = ScriptedRegistry()
    yield scripted
    scripted.close()


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Open(Protocol):
    async def __call__(self, *configs: RegistryConfig) -> RegistryImages: ...


@pytest.fixture
async def opened(registry: ScriptedRegistry, clock: Clock) -> AsyncIterator[Open]:
    """Opens a source of images; without configs, of the scripted registry alone."""
    made: list[RegistryImages] = []

    async def open_images(*configs: RegistryConfig) -> RegistryImages:
        usual = RegistryConfig(name=registry.host, url=registry.url)
        images = RegistryImages(AllowList(configs or (usual,)), "amd64", clock)
        made.append(images)
        return images

    yield open_images
    for images in made:
        await images.close()


@asynccontextmanager
async def images_of(*configs: RegistryConfig) -> AsyncIterator[RegistryImages]:
    images = RegistryImages(AllowList(configs), "amd64")
    try:
        yield images
    finally:
        await images.close()
