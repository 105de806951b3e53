"""Layouts of images' slots: looks up the folders and the USER of an image by a container that is never started."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from typing import Final

from docker import APIClient

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.images.look import ImageFile, layout_by, layout_without_look
from scheduler.images.places import Folder, Layout
from scheduler.launchers.docker_archive import mode_of, read_file, read_folder
from scheduler.launchers.docker_config import DockerSettings, container_name, look_body
from scheduler.launchers.docker_engine import Engine

MAX_REMEMBERED: Final = 1024
MAX_REMEMBERED_BYTES: Final = 64 << 20
"""Limit of the content of HOMEs, over all images, in bytes."""


class Layouts:
    """Finds the layouts of images. A layout never changes, because an image's id names its content."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: OrderedDict[str, Layout | str] = OrderedDict()
        self._known_bytes = 0
        self._looks: dict[str, asyncio.Task[Layout | str]] = {}
        self.looking: set[str] = set()
        """The slot labels of the containers through which images are being looked into."""

    async def layout(self, image: Image) -> Layout:
        """Asks the engine once an image: which HOME its USER has, and what the image holds there and in VOLUMEs.

        Raises `EngineRefused`, `EngineUnavailable`, `ImageUnknown`, `ImageUnusable`.
        """
        try:
            at_once = layout_without_look(image)
        except ImageUnusable as error:
            raise _unusable(image, str(error)) from error
        if at_once is not None:
            return at_once
        found = self._known.get(image.image_id)
        if found is None:
            # All starts of the image's first slots share one look. It goes on if one of them is cancelled.
            found = await asyncio.shield(self._look(image))
        else:
            self._known.move_to_end(image.image_id)
        if isinstance(found, str):
            raise _unusable(image, found)
        return found

    async def close(self) -> None:
        looks = list(self._looks.values())
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    def _look(self, image: Image) -> asyncio.Task[Layout | str]:
        look = self._looks.get(image.image_id)
        if look is None:
            look = asyncio.create_task(self._look_into(image))
            self._looks[image.image_id] = look
            look.add_done_callback(lambda done: self._looked(image.image_id, done))
        return look

    def _looked(self, image_id: str, look: asyncio.Task[Layout | str]) -> None:
        del self._looks[image_id]
        if look.cancelled() or look.exception() is not None:
            return
        self._known[image_id] = found = look.result()
        self._known_bytes += _bytes_of(found)
        while len(self._known) > MAX_REMEMBERED or self._known_bytes > MAX_REMEMBERED_BYTES:
            _, forgotten = self._known.popitem(last=False)
            self._known_bytes -= _bytes_of(forgotten)

    async def _look_into(self, image: Image) -> Layout | str:
        """The layout, or what is wrong with the image."""
        settings = self._engine.settings
        look_id = f"look-{uuid.uuid4().hex[:16]}"
        self.looking.add(look_id)
        try:
            return await self._engine.look(
                container_name(settings, look_id),
                look_body(image, settings, look_id),
                lambda client, container: _found(DockerLook(client, container), image, settings),
            )
        finally:
            self.looking.discard(look_id)


class DockerLook:
    """A look through a container of the image (`scheduler.images.look.Look`). Raises what the Docker client raises."""

    def __init__(self, client: APIClient, container: str) -> None:
        self._client = client
        self._container = container

    def file(self, path: str, most_bytes: int) -> ImageFile:
        return read_file(self._client, self._container, path, most_bytes)

    def mode(self, path: str) -> int | None:
        return mode_of(self._client, self._container, path)

    def folder(self, path: str, most_bytes: int | None, content_bytes: int = 0) -> Folder | None:
        return read_folder(self._client, self._container, path, most_bytes, content_bytes)


def _found(look: DockerLook, image: Image, settings: DockerSettings) -> Layout | str:
    """The image's layout, or what is wrong with it."""
    volume_bytes, home_bytes = settings.volume_content_mib << 20, settings.home_content_kib << 10
    try:
        return layout_by(look, image, volume_bytes=volume_bytes, home_bytes=home_bytes)
    except ImageUnusable as error:
        return str(error)


def _bytes_of(known: Layout | str) -> int:
    return len(known.content) if isinstance(known, Layout) else 0


def _unusable(image: Image, why: str) -> ImageUnusable:
    return ImageUnusable(f"{image.reference} cannot be started: {why}")
