"""A stand for each launcher: what its contract suite needs to know of its engine, and nothing more."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from pathlib import Path

import msgspec
from docker import APIClient

from scheduler.image import Image
from scheduler.launchers.contract import Launcher, SlotOrder
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.fakes import CAT, FakeEngine, FakeExecutor, FakeLauncher
from tests.scheduler.launchers.rig import Doors, ImageMaker, Probe, container_of, folder_of


class Stand(ABC):
    """One open launcher, `launcher`, the ends that it reported, and its engine as the tests may use it."""

    def __init__(self) -> None:
        self.gone: list[tuple[str, str]] = []
        self.gone_of_next_run: list[tuple[str, str]] = []
        self._others: list[Launcher] = []

    @abstractmethod
    async def prepare(self) -> None:
        """Bring up what the launcher needs before it is opened."""

    @property
    @abstractmethod
    def launcher(self) -> Launcher: ...

    @abstractmethod
    async def image(self) -> Image:
        """One that can be started."""

    async def order(self, memory_mib: int = 64) -> SlotOrder:
        image = await self.image()
        pool = PoolKey("acme", image.digest, Resources(memory_mib=memory_mib), Isolation.SHARED)
        return SlotOrder(f"t-{uuid.uuid4().hex[:12]}", pool, image, "ab" * 32)

    @abstractmethod
    async def start(self, memory_mib: int = 64) -> SlotOrder:
        """Start a slot, and wait for its guest."""

    @abstractmethod
    async def start_one_that_ends_at_once(self, order: SlotOrder) -> None: ...

    @abstractmethod
    async def end(self, slot_id: str) -> None:
        """Have the slot's init exit."""

    @abstractmethod
    async def use_up_memory(self, slot_id: str) -> None: ...

    @abstractmethod
    async def remove(self, slot_id: str) -> None:
        """Remove a slot as an operator would, behind the launcher's back."""

    @abstractmethod
    async def delete_image(self) -> None:
        """Delete the image of the orders from the engine."""

    @abstractmethod
    async def left(self) -> list[str]:
        """The slots of this set that the engine has, whatever the launcher says."""

    def next_run(self, installation: str | None = None) -> Launcher:
        """The launcher of the set's next run, not open yet; `installation`: another one's, whose set has this name."""
        launcher = self._next_run(installation)
        self._others.append(launcher)
        return launcher

    @abstractmethod
    def _next_run(self, installation: str | None) -> Launcher: ...

    async def until_left(self, *slot_ids: str, timeout_s: float = 60.0) -> None:
        """Wait until the engine has these slots and no others."""
        async with asyncio.timeout(timeout_s):
            while (left := await self.left()) != sorted(slot_ids):  # noqa: ASYNC110 (the engine acts)
                await asyncio.sleep(0.02)
        assert left == sorted(slot_ids)

    async def close(self) -> None:
        for launcher in (*self._others, self.launcher):
            await launcher.close()


class ProbeStand(Stand):
    """Slots that run; the stand-in for their guests is `probe.c`."""

    def __init__(self) -> None:
        super().__init__()
        self._doors = Doors(self.folder_of)
        self._probes: dict[str, Probe] = {}
        self._reference = ""
        self._image: Image | None = None

    @property
    @abstractmethod
    def maker(self) -> ImageMaker:
        """What makes images on the engine."""

    @abstractmethod
    def folder_of(self, slot_id: str) -> Path:
        """Where a slot's guest knocks (`SlotFolder`)."""

    @abstractmethod
    async def resolve(self, reference: str) -> Image: ...

    async def image(self) -> Image:
        if self._image is None:
            self._reference = self.maker.make('ENTRYPOINT ["/bin/algorithm"]')
            self._image = await self.resolve(self._reference)
        return self._image

    async def start(self, memory_mib: int = 64) -> SlotOrder:
        order = await self.order(memory_mib)
        self._doors.listen(order.slot_id)
        await self.launcher.start(order)
        self._probes[order.slot_id] = await self._doors.admit(order.slot_id)
        return order

    async def start_one_that_ends_at_once(self, order: SlotOrder) -> None:
        self._doors.listen(order.slot_id)
        refusal = asyncio.create_task(self._doors.refuse(order.slot_id))
        await self.launcher.start(order)
        await refusal

    async def end(self, slot_id: str) -> None:
        await self._probes[slot_id].end("exit 3")

    async def use_up_memory(self, slot_id: str) -> None:
        await self._probes[slot_id].end("grow 64")

    async def delete_image(self) -> None:
        await asyncio.to_thread(self.maker.remove, self._reference)

    async def close(self) -> None:
        await super().close()
        self._doors.close()


class DockerStand(ProbeStand):
    """A real engine."""

    def __init__(self, settings: DockerSettings, images: ImageMaker) -> None:
        super().__init__()
        self._settings = settings
        self._maker = images
        self._client: APIClient = images.client
        self._launcher = DockerLauncher(settings, self.folder_of, self._tell)

    def _tell(self, slot_id: str, reason: str) -> None:
        self.gone.append((slot_id, reason))

    async def prepare(self) -> None: ...

    @property
    def launcher(self) -> DockerLauncher:
        return self._launcher

    @property
    def maker(self) -> ImageMaker:
        return self._maker

    def folder_of(self, slot_id: str) -> Path:
        return folder_of(slot_id)

    async def resolve(self, reference: str) -> Image:
        return await self._launcher.images.resolve(reference)

    async def remove(self, slot_id: str) -> None:
        name = container_of(self._settings.set_name, slot_id)
        await asyncio.to_thread(self._client.remove_container, name, force=True)

    async def left(self) -> list[str]:
        listed = await asyncio.to_thread(
            self._client.containers,
            all=True,
            filters={"label": f"org.general-compute.set={self._settings.set_name}"},
        )
        return sorted(entry["Labels"]["org.general-compute.slot"] for entry in listed)

    def _next_run(self, installation: str | None) -> DockerLauncher:
        settings = self._settings
        if installation is not None:
            settings = msgspec.structs.replace(settings, installation=installation)
        return DockerLauncher(
            settings, self.folder_of, lambda slot_id, reason: self.gone_of_next_run.append((slot_id, reason))
        )


class FakeStand(Stand):
    """The double that the manager's tests use, so that what they rest on is what launchers do."""

    def __init__(self) -> None:
        super().__init__()
        self._engine = FakeEngine()
        self._launcher = self._make(self._engine, self.gone)

    def _make(self, engine: FakeEngine, gone: list[tuple[str, str]]) -> FakeLauncher:
        launcher = FakeLauncher(
            FakeExecutor(), engine, lambda slot_id, reason: gone.append((slot_id, reason))
        )
        launcher.prompt = False
        launcher.start_takes_s = 0.2
        return launcher

    async def prepare(self) -> None: ...

    @property
    def launcher(self) -> FakeLauncher:
        return self._launcher

    async def image(self) -> Image:
        return CAT

    async def start(self, memory_mib: int = 64) -> SlotOrder:
        order = await self.order(memory_mib)
        await self._launcher.start(order)
        return order

    async def start_one_that_ends_at_once(self, order: SlotOrder) -> None:
        self._engine.short_lived = True
        await self._launcher.start(order)

    async def end(self, slot_id: str) -> None:
        self._engine.end(slot_id, "its container ended")

    async def use_up_memory(self, slot_id: str) -> None:
        self._engine.end(slot_id, "its container was killed", out_of_memory=True)

    async def remove(self, slot_id: str) -> None:
        self._engine.end(slot_id, "its container is gone")

    async def delete_image(self) -> None:
        self._engine.images_gone.add(CAT.image_id)

    async def left(self) -> list[str]:
        return sorted(self._engine.slots)

    def _next_run(self, installation: str | None) -> FakeLauncher:
        # An installation sees its own slots only.
        return self._make(self._engine if installation is None else FakeEngine(), self.gone_of_next_run)
