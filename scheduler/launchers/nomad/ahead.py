"""Finds the images that a set wants on every node ahead of its tasks, and tells them to its registrar."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from scheduler.errors import SchedulerError
from scheduler.images.contract import ImageSource, LayoutSource
from scheduler.launchers.nomad.orders import Ahead, AheadImage
from scheduler.launchers.nomad.start import run_name

log = structlog.get_logger()

_AGAIN_S: Final = 600.0
"""How often the images are looked for again, in seconds: a tag may name another one by then."""


class ImagesAhead:
    """`references`: the images, as the set's operator names them. `send` takes what was found to the registrar."""

    def __init__(
        self,
        references: Sequence[str],
        images: ImageSource,
        layouts: LayoutSource,
        again_s: float = _AGAIN_S,
    ) -> None:
        self._references = tuple(references)
        self._images = images
        self._layouts = layouts
        self._again_s = again_s

    async def keep(self, send: Callable[[Ahead], None]) -> None:
        """Tell the registrar at once, and again now and then, for ever."""
        while True:
            send(await self._find())
            await asyncio.sleep(self._again_s)

    async def _find(self) -> Ahead:
        found = []
        for reference in self._references:
            try:
                image = await self._images.resolve(reference)
                layout = await self._layouts.layout(image)
            except SchedulerError as error:
                log.warning("image cannot be pulled ahead", image=reference, reason=str(error))
                continue
            run = run_name(image)
            if "@" not in run:
                log.warning("image is of no registry, so no node can pull it ahead", image=reference)
                continue
            found.append(AheadImage(reference, run, layout.places))
        return Ahead(tuple(found))
