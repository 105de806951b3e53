"""How slots of an image are laid out: what must be known of its folders and its USER is looked up in the image."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from typing import Final

from docker import APIClient

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.launchers.docker_archive import (
    FolderTooLarge,
    mode_of,
    read_file,
    read_folder,
)
from scheduler.launchers.docker_config import DockerSettings, container_name, look_body
from scheduler.launchers.docker_engine import Engine
from scheduler.launchers.places import ALWAYS_WRITABLE, Folder, Layout, Question, layout, question
from scheduler.launchers.user import Owner, User, UserUnusable, parse_user

MAX_REMEMBERED: Final = 1024
MAX_FILE_BYTES: Final = 1 << 20
"""Of an image's /etc/passwd and /etc/group each."""

_WRITE_AND_ENTER: Final = 0o3


class Layouts:
    """Tells the layouts of images. What is found holds for ever: an image id names its content."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: OrderedDict[str, Layout | str] = OrderedDict()
        self._looks: dict[str, asyncio.Task[Layout | str]] = {}
        self.looking: set[str] = set()
        """The slot labels of the containers that images are being looked into with."""

    async def layout(self, image: Image) -> Layout:
        """Asks the engine nothing, but once for an image with VOLUMEs, HOME or a USER by name.

        Raises `EngineRefused`, `EngineUnavailable`, `ImageUnknown`, `ImageUnusable`.
        """
        try:
            user = parse_user(image.user)
            asked = question(image)
            if not user.files_needed() and asked == Question():
                return layout(image, owner=user.owner({}))
        except UserUnusable as error:
            raise _unusable(image, str(error)) from error
        found = self._known.get(image.image_id)
        if found is None:
            # All who start the image's first slots share one look; none that is cancelled takes it along.
            found = await asyncio.shield(self._look(image, user, asked))
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

    def _look(self, image: Image, user: User, asked: Question) -> asyncio.Task[Layout | str]:
        look = self._looks.get(image.image_id)
        if look is None:
            look = asyncio.create_task(self._look_into(image, user, asked))
            self._looks[image.image_id] = look
            look.add_done_callback(lambda done: self._looked(image.image_id, done))
        return look

    def _looked(self, image_id: str, look: asyncio.Task[Layout | str]) -> None:
        del self._looks[image_id]
        if look.cancelled() or look.exception() is not None:
            return
        self._known[image_id] = look.result()
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    async def _look_into(self, image: Image, user: User, asked: Question) -> Layout | str:
        """The layout, or what is wrong with the image."""
        settings = self._engine.settings
        look_id = f"look-{uuid.uuid4().hex[:16]}"
        self.looking.add(look_id)
        try:
            return await self._engine.look(
                container_name(settings, look_id),
                look_body(image, settings, look_id),
                lambda client, container: _found(_Look(client, container), image, user, asked, settings),
            )
        finally:
            self.looking.discard(look_id)


class _Look:
    """A look through a container of the image. Blocks."""

    def __init__(self, client: APIClient, container: str) -> None:
        self._client = client
        self._container = container

    def folders(self, asked: Question, most_bytes: int) -> dict[str, Folder | None]:
        found = {path: self._volume(path, most_bytes) for path in asked.volumes}
        for path in asked.folders:
            found[path] = read_folder(self._client, self._container, path, None)
        for path in asked.existence:
            found[path] = Folder() if self._mode(path) is not None else None
        return found

    def tmp_is_open(self, image: Image) -> bool:
        """Whether /tmp will be everybody's, whoever it belongs to."""
        mode = self._mode("/tmp")
        # Where it is missing, the engine makes it for a WORKDIR, as root's.
        return (
            image.workdir.rstrip("/") != "/tmp"
            if mode is None
            else mode & _WRITE_AND_ENTER == _WRITE_AND_ENTER
        )

    def owner(self, user: User) -> Owner:
        files = {}
        for path in user.files_needed():
            file = read_file(self._client, self._container, path, MAX_FILE_BYTES)
            if file.why:
                raise UserUnusable(f"its USER cannot be told: {path} {file.why}")
            files[path] = file.content
        return user.owner(files)

    def _mode(self, path: str) -> int | None:
        return mode_of(self._client, self._container, path)

    def _volume(self, path: str, most_bytes: int) -> Folder | None:
        try:
            return read_folder(self._client, self._container, path, most_bytes)
        except FolderTooLarge:
            raise ImageUnusable(
                f"VOLUME {path} has more than {most_bytes >> 20} MiB of the image's files, and slots are given a "
                "copy of those; take the VOLUME out of the Dockerfile, and they are read where they lie"
            ) from None


def _found(look: _Look, image: Image, user: User, asked: Question, settings: DockerSettings) -> Layout | str:
    """The image's layout, or what is wrong with it."""
    try:
        folders = look.folders(asked, settings.volume_content_mib << 20)
        found = layout(image, folders)
        if user.files_needed() and found.places == ALWAYS_WRITABLE and look.tmp_is_open(image):
            # Reading a file takes twenty times as long as asking for a mode.
            return found
        return layout(image, folders, look.owner(user))
    except (ImageUnusable, UserUnusable) as error:
        return str(error)


def _unusable(image: Image, why: str) -> ImageUnusable:
    return ImageUnusable(f"{image.reference} cannot be started: {why}")
