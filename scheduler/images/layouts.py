"""Layouts of images' slots, remembered: each image is looked into once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.images.look import Look, layout_by, layout_without_look
from scheduler.images.places import Layout

MAX_REMEMBERED: Final = 1024
MAX_REMEMBERED_BYTES: Final = 64 << 20
"""Limit of the content of HOMEs, over all images, in bytes."""


class Layouts:
    """Finds the layouts of images. A layout never changes, because an image's id names its content.

    `look_into` gives an image's layout, or says what is wrong with the image (`layout_or_fault`).
    """

    def __init__(self, look_into: Callable[[Image], Awaitable[Layout | str]]) -> None:
        self._look_into = look_into
        self._known: OrderedDict[str, Layout | str] = OrderedDict()
        self._known_bytes = 0
        self._looks: dict[str, asyncio.Task[Layout | str]] = {}

    async def layout(self, image: Image) -> Layout:
        """The image's layout; takes a look into it the first time. Raises `ImageUnusable`, and as `look_into` does."""
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
            look = asyncio.create_task(self._looking(image))
            self._looks[image.image_id] = look
            look.add_done_callback(lambda done: self._looked(image.image_id, done))
        return look

    async def _looking(self, image: Image) -> Layout | str:
        return await self._look_into(image)

    def _looked(self, image_id: str, look: asyncio.Task[Layout | str]) -> None:
        del self._looks[image_id]
        if look.cancelled() or look.exception() is not None:
            return
        self._known[image_id] = found = look.result()
        self._known_bytes += _bytes_of(found)
        while len(self._known) > MAX_REMEMBERED or self._known_bytes > MAX_REMEMBERED_BYTES:
            _, forgotten = self._known.popitem(last=False)
            self._known_bytes -= _bytes_of(forgotten)


def layout_or_fault(look: Look, image: Image, *, volume_bytes: int, home_bytes: int) -> Layout | str:
    """The image's layout, or what is wrong with the image. Blocks, and raises as `look` does (`look.layout_by`)."""
    try:
        return layout_by(look, image, volume_bytes=volume_bytes, home_bytes=home_bytes)
    except ImageUnusable as error:
        return str(error)


def _bytes_of(known: Layout | str) -> int:
    return len(known.content) if isinstance(known, Layout) else 0


def _unusable(image: Image, why: str) -> ImageUnusable:
    return ImageUnusable(f"{image.reference} cannot be started: {why}")
