"""Whose an image's writable places are: its USER in numbers, looked up in the image where it is a name."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from typing import Final

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.launchers.docker_archive import ImageFile
from scheduler.launchers.docker_config import container_name, has_places_of_its_own, look_body
from scheduler.launchers.docker_engine import Engine
from scheduler.launchers.user import Owner, User, UserUnusable, parse_user

MAX_REMEMBERED: Final = 1024
MAX_FILE_BYTES: Final = 1 << 20
"""Of an image's /etc/passwd and /etc/group each."""


class Owners:
    """Tells the owners of images' places. What is found holds for ever: an image id names its content."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: OrderedDict[str, Owner | str] = OrderedDict()
        self._looks: dict[str, asyncio.Task[Owner | str]] = {}
        self.looking: set[str] = set()
        """The slot labels of the containers that images are being looked into with."""

    async def owner(self, image: Image) -> Owner | None:
        """The owner of the image's VOLUMEs and labelled places; None for an image without any.

        Asks the engine nothing but once for an image with such places and a USER by name.
        Raises `EngineRefused`, `EngineUnavailable`, `ImageUnknown`, `ImageUnusable`.
        """
        if not has_places_of_its_own(image):
            return None
        try:
            user = parse_user(image.user)
            if not user.files_needed():
                return user.owner({})
        except UserUnusable as error:
            raise _unusable(image, str(error)) from error
        found = self._known.get(image.image_id)
        if found is None:
            # All who start the image's first slots share one look; none that is cancelled takes it along.
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

    def _look(self, image: Image, user: User) -> asyncio.Task[Owner | str]:
        look = self._looks.get(image.image_id)
        if look is None:
            look = asyncio.create_task(self._look_into(image, user))
            self._looks[image.image_id] = look
            look.add_done_callback(lambda done: self._looked(image.image_id, done))
        return look

    def _looked(self, image_id: str, look: asyncio.Task[Owner | str]) -> None:
        del self._looks[image_id]
        if look.cancelled() or look.exception() is not None:
            return
        self._known[image_id] = look.result()
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    async def _look_into(self, image: Image, user: User) -> Owner | str:
        """The owner, or what is wrong with the image."""
        settings = self._engine.settings
        look_id = f"look-{uuid.uuid4().hex[:16]}"
        self.looking.add(look_id)
        try:
            files = await self._engine.read_image(
                container_name(settings.set_name, look_id),
                look_body(image, settings, look_id),
                user.files_needed(),
                MAX_FILE_BYTES,
            )
        finally:
            self.looking.discard(look_id)
        try:
            return user.owner({path: _content(path, file) for path, file in files.items()})
        except UserUnusable as error:
            return str(error)


def _content(path: str, file: ImageFile) -> bytes | None:
    if file.why:
        raise UserUnusable(f"its USER cannot be told: {path} {file.why}")
    return file.content


def _unusable(image: Image, why: str) -> ImageUnusable:
    return ImageUnusable(f"{image.reference} cannot be started: {why}")
