"""Stands of the contract suite on a cluster: a registrar of the test's own, over a real agent or over the double."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import docker
import httpx
from docker.models.containers import Container

from ops.nomad.agent import Agent
from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.docker_config import DockerSettings
from scheduler.launchers.docker_source import EngineImages
from scheduler.launchers.nomad.launcher import NomadLauncher, Source
from scheduler.launchers.nomad.node_files import BIN, RUN, guest_name, seccomp_name
from scheduler.launchers.nomad.records import TERMINAL
from scheduler.launchers.nomad.registrar import Registrar
from scheduler.launchers.nomad.settings import NomadSettings, RegistrarSettings
from scheduler.launchers.nomad.words import Kind
from scheduler.launchers.seccomp import profile_json
from scheduler.policy.node import Standing
from tests.scheduler.conftest import until
from tests.scheduler.fakes import CAT
from tests.scheduler.launchers.nomad.double import NomadDouble
from tests.scheduler.launchers.rig import ImageMaker, installation_of
from tests.scheduler.launchers.stands import ProbeStand, Stand

STARTS_AT_ONCE = 8
STRANGER = "0" * 12
"""Installation of another set of the same name."""


class ClusterStand(Stand):
    """What both have: registrars, launchers, and the folders of slots' sockets."""

    ahead_s = 0.0
    """How far the registrars' clock is ahead, for tests in which much time passes."""
    max_slots = 1000
    """What registrars allow that are started from now on."""

    def __init__(self, set_name: str, url: str, node_folder: Path, guest: str) -> None:
        super().__init__()
        self.set_name = set_name
        self.nodes: dict[str, tuple[Standing, str]] = {}
        """How each node stands, and why, as the launcher said."""
        self._guest = guest
        self._url = url
        self._node_folder = node_folder
        self._folder = Path(tempfile.mkdtemp(prefix="gcn"))
        self._run_folder = node_folder / RUN / set_name
        self._registrars: list[asyncio.Task[None]] = []
        self._launcher = self._make(installation_of(set_name), self.gone)

    def _make_source(self) -> Source:
        raise NotImplementedError

    def _make(self, installation: str, gone: list[tuple[str, str]]) -> NomadLauncher:
        settings_of_set = NomadSettings(
            set_name=self.set_name,
            installation=installation,
            registrar=self.socket_of(installation),
            run_folder=self._node_folder / RUN,
            connect_timeout_s=60,
        )
        tell: Callable[[str, str], None] = lambda slot_id, reason: gone.append((slot_id, reason))  # noqa: E731
        return NomadLauncher(
            settings_of_set,
            self._make_source(),
            self.folder_of,
            tell,
            on_node=lambda node, standing, reason: self.nodes.update({node: (standing, reason)}),
        )

    def socket_of(self, installation: str) -> Path:
        return self._folder / f"{installation}.sock"

    async def prepare(self) -> None:
        """A registrar for each installation that a test may open."""
        installations = (installation_of(self.set_name), STRANGER)
        for installation in installations:
            settings = RegistrarSettings(
                set_name=self.set_name,
                socket=str(self.socket_of(installation)),
                address=self._url,
                node_folder=str(self._node_folder),
                starts_per_node=STARTS_AT_ONCE,
                max_slots=self.max_slots,
                relist_s=1,
            )
            registrar = Registrar(
                settings,
                self._guest,
                seccomp_name(profile_json()),
                lambda: time.monotonic() + self.ahead_s,
            )
            self._registrars.append(asyncio.create_task(registrar.serve()))
        await until(lambda: all(self.socket_of(each).exists() for each in installations))

    def folder_of(self, slot_id: str) -> Path:
        folder = self._run_folder / slot_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def launcher(self) -> NomadLauncher:
        return self._launcher

    def _next_run(self, installation: str | None) -> NomadLauncher:
        return self._make(installation or installation_of(self.set_name), self.gone_of_next_run)

    @property
    def launcher_reason(self) -> str:
        """Why the launcher takes no orders now."""
        return self._launcher._connection.reason

    @property
    def serving(self) -> int:
        """How many connections of sets the registrars serve."""
        return sum(task.get_coro().__qualname__ == "Registrar._serve" for task in asyncio.all_tasks())  # type: ignore[union-attr]

    async def found_lost(self, slot_id: str) -> None:
        """Wait until the launcher knows that the cluster has lost the node of this slot."""
        await until(lambda: self._launcher._slots[slot_id].kind is Kind.NODE_LOST)

    @property
    def leaving(self) -> int:
        """How many slots the launcher waits for to end."""
        return len(self._launcher._leaving)

    async def stop_registrars(self) -> None:
        for task in self._registrars:
            task.cancel()
        await asyncio.gather(*self._registrars, return_exceptions=True)
        self._registrars.clear()

    async def close(self) -> None:
        await super().close()
        await self.stop_registrars()
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._run_folder, ignore_errors=True)


class NomadStand(ClusterStand, ProbeStand):
    """A real agent and engine."""

    def __init__(self, set_name: str, agent: Agent, images: ImageMaker, host: str, probe: Path) -> None:
        self._images = images
        self._engine_settings = DockerSettings(
            set_name=set_name,
            installation=installation_of(set_name),
            guest_binary=probe,
            docker_host=host,
        )
        program = probe.read_bytes()
        name = guest_name(program)
        if not (agent.node_folder / BIN / name).exists():
            shutil.copy(probe, agent.node_folder / BIN / name)
        self._looking = EngineImages(self._engine_settings)
        self._client = docker.DockerClient(base_url=host, timeout=60)
        super().__init__(set_name, agent.url, agent.node_folder, name)

    def _make_source(self) -> Source:
        return EngineImages(self._engine_settings)

    @property
    def maker(self) -> ImageMaker:
        return self._images

    async def resolve(self, reference: str) -> Image:
        await self._looking.open()
        return await self._looking.images.resolve(reference)

    async def remove(self, slot_id: str) -> None:
        (found,) = await asyncio.to_thread(self._containers, slot_id)
        await asyncio.to_thread(found.remove, force=True)

    def _containers(self, slot_id: str = "") -> list[Container]:
        labels = [f"org.general-compute.set={self.set_name}"]
        labels += [f"org.general-compute.slot={slot_id}"] if slot_id else []
        return self._client.containers.list(filters={"label": labels})

    async def left(self) -> list[str]:
        """Containers that run, and allocations that may yet make one."""
        running = {
            each.labels["org.general-compute.slot"] for each in await asyncio.to_thread(self._containers)
        }
        async with httpx.AsyncClient(base_url=self._url, trust_env=False) as client:
            query = {"filter": f'JobID matches "^gc-{self.set_name}-"'}
            allocations = (await client.get("/v1/allocations", params=query)).json()
        live = {each["TaskGroup"] for each in allocations if each["ClientStatus"] not in TERMINAL}
        return sorted(running | live)

    async def close(self) -> None:
        await super().close()
        await self._looking.close()
        self._client.close()


class NoLook:
    """A source of layouts without any image."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def layout(self, image: Image) -> Layout:
        return Layout(("/tmp", "/dev/shm"))


class NomadDoubleStand(ClusterStand):
    """The double of Nomad's API, for machines without Nomad."""

    def __init__(self, set_name: str) -> None:
        self.double = NomadDouble()
        self._node = Path(tempfile.mkdtemp(prefix="gcnode"))
        super().__init__(set_name, self.double.url, self._node, "guest")

    def _make_source(self) -> Source:
        return NoLook()

    async def image(self) -> Image:
        return CAT

    async def start(self, memory_mib: int = 64) -> SlotOrder:
        order = await self.order(memory_mib)
        await self.launcher.start(order)
        return order

    async def start_one_that_ends_at_once(self, order: SlotOrder) -> None:
        self.double.short_lived = True
        await self.launcher.start(order)

    async def end(self, slot_id: str) -> None:
        self.double.end(slot_id, 3)

    async def use_up_memory(self, slot_id: str) -> None:
        self.double.end(slot_id, 137, out_of_memory=True)

    async def remove(self, slot_id: str) -> None:
        self.double.end(slot_id, 137)

    async def delete_image(self) -> None:
        self.double.images_gone.add(CAT.image_id)

    async def left(self) -> list[str]:
        return self.double.live(f"gc-{self.set_name}-")

    async def close(self) -> None:
        await super().close()
        self.double.close()
        with contextlib.suppress(OSError):
            shutil.rmtree(self._node)
