"""Copies of images' files in VOLUMEs, for their slots to read: one for each image, removed with its last slot."""

from __future__ import annotations

import asyncio
import uuid

from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.launchers.docker_config import container_name, contents_body
from scheduler.launchers.docker_engine import Engine


class Contents:
    """Keeps a container for each image whose slots need one. It is never started, and holds the copies that they share.

    The launcher removes each container of the set that no part of it needs, and so those that have left `holding`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._holders: dict[str, _Holder] = {}
        self._used: dict[str, _Holder] = {}
        self.holding: set[str] = set()
        """The slot labels of the containers that are needed."""

    async def hold(self, slot_id: str, image: Image, laid_out: Layout) -> str | None:
        """Return the name of the container to take the content from, until `release`; None if the image has none.
        Raises `EngineRefused`, `EngineUnavailable`, `ImageUnknown`, `ImageUnusable`."""
        if not laid_out.kept:
            return None
        holder = self._holders.get(image.image_id)
        if holder is None:
            holder = self._holders[image.image_id] = self._make(image, laid_out)
        holder.slots.add(slot_id)
        self._used[slot_id] = holder
        try:
            await asyncio.shield(holder.made)
        except BaseException:
            self.release(slot_id)
            if holder.made.done():
                self._drop(holder)
            raise
        return holder.name

    def release(self, slot_id: str) -> bool:
        """The slot is gone, or was never started. True if its container is no longer needed."""
        holder = self._used.pop(slot_id, None)
        if holder is None:
            return False
        holder.slots.discard(slot_id)
        if not holder.slots:
            self._drop(holder)
        return not holder.slots

    def lost(self, slot_id: str) -> None:
        """The container that this slot was to take its content from is gone: the next `hold` makes another."""
        holder = self._used.get(slot_id)
        if holder is not None:
            holder.slots.discard(slot_id)
            self._drop(holder)

    async def close(self) -> None:
        made = [holder.made for holder in self._holders.values()]
        for each in made:
            each.cancel()
        await asyncio.gather(*made, return_exceptions=True)

    def _make(self, image: Image, laid_out: Layout) -> _Holder:
        settings = self._engine.settings
        holder_id = f"hold-{uuid.uuid4().hex[:16]}"
        name = container_name(settings, holder_id)
        body = contents_body(image, settings, laid_out, holder_id)
        self.holding.add(holder_id)
        return _Holder(image.image_id, holder_id, name, asyncio.create_task(self._engine.create(name, body)))

    def _drop(self, holder: _Holder) -> None:
        # It may still be being created, and not listed yet. The launcher removes it once it is listed.
        self.holding.discard(holder.holder_id)
        if self._holders.get(holder.image_id) is holder:
            del self._holders[holder.image_id]


class _Holder:
    __slots__ = ("holder_id", "image_id", "made", "name", "slots")

    def __init__(self, image_id: str, holder_id: str, name: str, made: asyncio.Task[None]) -> None:
        self.image_id = image_id
        self.holder_id = holder_id
        self.name = name
        self.made = made
        self.slots: set[str] = set()
