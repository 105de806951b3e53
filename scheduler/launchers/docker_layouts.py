"""Layouts of images' slots: looks up the folders and the USER of an image by a container that is never started."""

from __future__ import annotations

import uuid

from docker import APIClient

from scheduler.image import Image
from scheduler.images.layouts import Layouts, layout_or_fault
from scheduler.images.look import ImageFile
from scheduler.images.places import Folder, Layout
from scheduler.launchers.docker_archive import mode_of, read_file, read_folder
from scheduler.launchers.docker_config import container_name, look_body
from scheduler.launchers.docker_engine import Engine


class DockerLayouts(Layouts):
    """Asks the engine once an image: which HOME its USER has, and what the image holds there and in VOLUMEs.

    `layout` also raises `EngineRefused`, `EngineUnavailable`, `ImageUnknown`.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(self._look_by_container)
        self._engine = engine
        self.looking: set[str] = set()
        """The slot labels of the containers through which images are being looked into."""

    async def _look_by_container(self, image: Image) -> Layout | str:
        settings = self._engine.settings
        volume_bytes, home_bytes = settings.volume_content_mib << 20, settings.home_content_kib << 10
        look_id = f"look-{uuid.uuid4().hex[:16]}"
        self.looking.add(look_id)
        try:
            return await self._engine.look(
                container_name(settings, look_id),
                look_body(image, settings, look_id),
                lambda client, container: layout_or_fault(
                    DockerLook(client, container), image, volume_bytes=volume_bytes, home_bytes=home_bytes
                ),
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
