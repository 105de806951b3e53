"""Layouts of images' slots: looks up the folders and the USER of an image by a container that is never started."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from typing import Final

from docker import APIClient

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.images.places import Folder, Layout, Question, home_folders, layout, question, said_home
from scheduler.images.user import PASSWD, User, UserUnusable, home_of, parse_user
from scheduler.launchers.docker_archive import (
    FolderTooLarge,
    mode_of,
    read_file,
    read_folder,
)
from scheduler.launchers.docker_config import DockerSettings, container_name, look_body
from scheduler.launchers.docker_engine import Engine

MAX_REMEMBERED: Final = 1024
MAX_REMEMBERED_BYTES: Final = 64 << 20
"""Limit of the content of HOMEs, over all images, in bytes."""
MAX_FILE_BYTES: Final = 1 << 20
"""Limit of an image's /etc/passwd and /etc/group each, in bytes."""


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
            user, home = parse_user(image.user), said_home(image)
            if not user.files_needed() and home is not None and question(image, home) == Question():
                return layout(image, owner=user.owner({}), home=home)
        except UserUnusable as error:
            raise _unusable(image, str(error)) from error
        found = self._known.get(image.image_id)
        if found is None:
            # All starts of the image's first slots share one look. It goes on if one of them is cancelled.
            found = await asyncio.shield(self._look(image, user))
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

    def _look(self, image: Image, user: User) -> asyncio.Task[Layout | str]:
        look = self._looks.get(image.image_id)
        if look is None:
            look = asyncio.create_task(self._look_into(image, user))
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

    async def _look_into(self, image: Image, user: User) -> Layout | str:
        """The layout, or what is wrong with the image."""
        settings = self._engine.settings
        look_id = f"look-{uuid.uuid4().hex[:16]}"
        self.looking.add(look_id)
        try:
            return await self._engine.look(
                container_name(settings, look_id),
                look_body(image, settings, look_id),
                lambda client, container: _found(_Look(client, container), image, user, settings),
            )
        finally:
            self.looking.discard(look_id)


class _Look:
    """A look through a container of the image. Blocks."""

    def __init__(self, client: APIClient, container: str) -> None:
        self._client = client
        self._container = container

    def folders(self, asked: Question, settings: DockerSettings) -> dict[str, Folder | None]:
        found = {path: self._volume(path, asked, settings) for path in asked.volumes}
        for path in asked.folders:
            found[path] = read_folder(self._client, self._container, path, None)
        for path in asked.existence:
            found[path] = Folder() if self._mode(path) is not None else None
        if asked.home and asked.home not in found:
            found[asked.home] = home = self._content(asked.home, settings)
            if home is not None and home.holds_files and home.content is None:
                for path in home_folders(asked.home):
                    found.setdefault(path, self._content(path, settings))
        return found

    def files(self, user: User, home: str | None) -> dict[str, bytes | None]:
        """The files that tell who the USER is, and what its HOME is where the image does not say it."""
        needed = user.files_needed()
        files = {}
        for path in {*needed, *([PASSWD] if home is None else ())}:
            file = read_file(self._client, self._container, path, MAX_FILE_BYTES)
            if file.why and path in needed:
                raise UserUnusable(f"its USER cannot be told: {path} {file.why}")
            files[path] = file.content
        return files

    def _mode(self, path: str) -> int | None:
        return mode_of(self._client, self._container, path)

    def _content(self, path: str, settings: DockerSettings) -> Folder | None:
        try:
            return read_folder(self._client, self._container, path, None, settings.home_content_kib << 10)
        except FolderTooLarge:
            return Folder(holds_files=True)

    def _volume(self, path: str, asked: Question, settings: DockerSettings) -> Folder | None:
        most_bytes, content_bytes = settings.volume_content_mib << 20, settings.home_content_kib << 10
        try:
            return read_folder(
                self._client, self._container, path, most_bytes, content_bytes if path == asked.home else 0
            )
        except FolderTooLarge:
            raise ImageUnusable(
                f"VOLUME {path} has more than {most_bytes >> 20} MiB of the image's files, and slots are given a "
                "copy of those; take the VOLUME out of the Dockerfile, and they are read where they lie"
            ) from None


def _found(look: _Look, image: Image, user: User, settings: DockerSettings) -> Layout | str:
    """The image's layout, or what is wrong with it."""
    try:
        said = said_home(image)
        files = look.files(user, said)
        owner = user.owner(files)
        home = said if said is not None else home_of(owner.uid, files.get(PASSWD))
        return layout(image, look.folders(question(image, home), settings), owner, home)
    except (ImageUnusable, UserUnusable) as error:
        return str(error)


def _bytes_of(known: Layout | str) -> int:
    return len(known.content) if isinstance(known, Layout) else 0


def _unusable(image: Image, why: str) -> ImageUnusable:
    return ImageUnusable(f"{image.reference} cannot be started: {why}")
