"""The images of this machine's engine, for a launcher that does not start slots there itself."""

from __future__ import annotations

from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.launchers.docker_config import DockerSettings
from scheduler.launchers.docker_engine import Engine
from scheduler.launchers.docker_events import EventStream, SlotEvent
from scheduler.launchers.docker_images import Images
from scheduler.launchers.docker_layouts import DockerLayouts
from scheduler.trouble import Trouble


class EngineImages:
    """Resolves images and lays out their slots by one Docker engine; starts nothing that outlives a look."""

    def __init__(self, settings: DockerSettings) -> None:
        self._engine = Engine(settings)
        self.images = Images(self._engine)
        self._layouts = DockerLayouts(self._engine)
        self._events = EventStream(self._engine, self)
        self._opened = False
        self._unheard = Trouble("engine events lost", "engine events received again")

    async def open(self) -> None:
        """Connect. Raises `EngineUnavailable`."""
        if not self._opened:
            await self._engine.learn()
            self._events.open()
            self._opened = True

    async def close(self) -> None:
        """Never raises."""
        self._events.close()
        await self.images.close()
        await self._layouts.close()
        self._engine.close()

    async def layout(self, image: Image) -> Layout:
        """How slots of the image are laid out. Raises what `DockerLayouts.layout` raises."""
        return await self._layouts.layout(image)

    # -- called by the event stream (docker_events.Listener)

    def images_changed(self) -> None:
        self.images.changed()

    def stream_opened(self) -> None:
        self._unheard.over()
        self.images.heard = True

    def stream_lost(self, reason: str) -> None:
        self._unheard.met(reason)
        self.images.heard = False

    def slot_event(self, event: SlotEvent) -> None:
        """Not this machine's engine but the cluster tells how slots fare."""
