"""Images and the layouts of their slots from registries alone: a set of a cluster needs no container engine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Final

from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.registry.allowed import AllowList
from scheduler.registry.images import RegistryImages
from scheduler.registry.layouts import RegistryLayouts
from scheduler.registry.settings import RegistryConfig

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""This machine's architecture in Go's words, as images have it."""


class RegistrySource:
    """Resolves images and lays out their slots. The nodes have this machine's architecture."""

    def __init__(self, registries: Sequence[RegistryConfig], *, volume_bytes: int, home_bytes: int) -> None:
        machine = platform.machine()
        self.images = RegistryImages(AllowList(registries), _ARCHITECTURES.get(machine, machine))
        self._layouts = RegistryLayouts(self.images, volume_bytes=volume_bytes, home_bytes=home_bytes)

    async def open(self) -> None:
        """Contacts nothing: a registry that is away keeps no set from starting."""

    async def close(self) -> None:
        """Never raises."""
        await self._layouts.close()
        await self.images.close()

    async def layout(self, image: Image) -> Layout:
        """The layout of the image's slots. Raises what `RegistryLayouts.layout` raises."""
        return await self._layouts.layout(image)
