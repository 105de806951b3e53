"""Helpers of launcher tests: images made from nothing, a slot that answers questions, and a look at what is left."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import json
import os
import socket
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import ImageNotFound

from scheduler.image import Image
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.doorway import SOCKET_FILE, SlotFolder
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.registries import digest_of

PASSWD = "root:x:0:0::/root:/none\nworker:x:1234:2345::/home/worker:/none\n"
GROUP = "root:x:0:\nworkers:x:2345:\n"


def installation_of(set_name: str) -> str:
    """The installation of a test's set: sets of tests have names of their own."""
    return hashlib.sha256(set_name.encode()).hexdigest()[:12]


Files = dict[str, bytes | str | int | None]
"""What an image holds: a file's bytes, the target of a symbolic link, or a folder by its mode (None: 755)."""


def tar_of(files: Files) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if content is None or isinstance(content, int):
                entry.type = tarfile.DIRTYPE
                entry.mode = 0o755 if content is None else content
                archive.addfile(entry)
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


ROOT_FILES: Files = {
    "etc": None,
    "etc/passwd": PASSWD.encode(),
    "etc/group": GROUP.encode(),
    "data": None,
    "data/from-image": b"of the image\n",
}


class ImageMaker:
    """Makes images on an engine without any registry or base; removes them all at the end."""

    def __init__(self, client: APIClient) -> None:
        self.client = client
        self._made: set[str] = set()

    def make(self, *changes: str, files: Files | None = None, tag: str = "", bare: bool = False) -> str:
        """An image with `docker import --change`; returns its reference. `bare`: with these files alone."""
        reference = tag or f"gc-test-{uuid.uuid4().hex[:10]}:1"
        repository, _, version = reference.rpartition(":")
        said = self.client.import_image_from_data(
            tar_of({**({} if bare else ROOT_FILES), **(files or {})}),
            repository=repository,
            tag=version,
            changes=list(changes),
        )
        self._made |= {reference, json.loads(said)["status"]}
        return reference

    def load(self, config: dict[str, Any], *, files: Files | None = None, **fields: Any) -> str:
        """An image whose configuration is written by hand, as `docker load` takes it."""
        reference = f"gc-test-{uuid.uuid4().hex[:10]}:1"
        self.load_layers(reference, config, tar_of(ROOT_FILES if files is None else files), **fields)
        return reference

    def load_layers(self, reference: str, config: dict[str, Any], *layers: bytes, **fields: Any) -> None:
        """An image of these layers, which are tar archives."""
        written = {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
            **fields,
        }
        names = [f"layer{number}.tar" for number in range(len(layers))]
        manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": names}]
        self.client.load_image(  # type: ignore[no-untyped-call]
            tar_of(
                {
                    "config.json": json.dumps(written).encode(),
                    **dict(zip(names, layers, strict=True)),
                    "manifest.json": json.dumps(manifest).encode(),
                }
            )
        )
        self._made.add(reference)

    def tag(self, reference: str, new: str) -> None:
        repository, _, version = new.rpartition(":")
        self.client.tag(reference, repository, version)
        self._made.add(new)

    def remove(self, reference: str) -> None:
        self.client.remove_image(reference, force=True)
        self._made.discard(reference)

    def clean(self) -> None:
        # Those first that have a tag: without any they are gone by then, but for images whose tag moved on.
        for reference in sorted(self._made, key=lambda name: name.startswith("sha256:")):
            with suppress(ImageNotFound):
                self.remove(reference)


class Probe:
    """The far end of a slot's guest: the stand-in of `probe.c` answers what it is asked."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def ask(self, question: str) -> str:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            await loop.sock_sendall(self._connection, question.encode())
            return (await loop.sock_recv(self._connection, 65536)).decode()

    async def places(self) -> list[str]:
        """The places that it was given."""
        argv = (await self.ask("argv")).split("\n")
        return argv[3 : argv.index("--")]

    async def end(self, how: str) -> None:
        """Give it an order that it will not answer."""
        await asyncio.get_running_loop().sock_sendall(self._connection, how.encode())

    def close(self) -> None:
        self._connection.close()


@functools.cache
def _folders() -> tempfile.TemporaryDirectory[str]:
    # A socket's path may have 107 bytes, which pytest's own folders can exceed.
    folders = tempfile.TemporaryDirectory(prefix="gcl")
    Path(folders.name).chmod(0o755)
    return folders


def folder_of(slot_id: str) -> Path:
    """Where the tests, instead of an executor, listen for a slot (`SlotFolder`). It is gone when the tests end."""
    folder = Path(_folders().name) / slot_id
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    return folder


class Doors:
    """Where the guests of slots knock, in the place of an executor's sockets. `folder_of`: as launchers have it."""

    def __init__(self, folder_of: SlotFolder) -> None:
        self._folder_of = folder_of
        self._listening: dict[str, socket.socket] = {}
        self._open: list[socket.socket] = []

    def listen(self, slot_id: str) -> None:
        """Wait for the guest of a slot that is about to start."""
        path = self._folder_of(slot_id) / SOCKET_FILE
        # Slots of two installations may have one id; the other's guest is connected by now.
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._open.append(listener)
        # By its folder, as a socket's own path may have 107 bytes.
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        path.chmod(0o666)
        listener.listen(4)
        self._listening[slot_id] = listener

    async def admit(self, slot_id: str) -> Probe:
        """The guest of a slot, once it has knocked."""
        async with asyncio.timeout(60):
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listening[slot_id])
        self._open.append(connection)
        return Probe(connection)

    async def refuse(self, slot_id: str) -> None:
        """Answer a guest by closing its connection; the probe then ends."""
        (await asyncio.get_running_loop().sock_accept(self._listening[slot_id]))[0].close()

    def close(self) -> None:
        for each in self._open:
            each.close()


class Rig:
    """One launcher under test, the slots that it starts, and what it reported."""

    def __init__(self, launcher: DockerLauncher, gone: list[tuple[str, str]]) -> None:
        self.launcher = launcher
        self.images = launcher.images
        self.gone = gone
        self._doors = Doors(folder_of)

    def order(
        self,
        image: Image,
        *,
        resources: Resources | None = None,
        slot_id: str = "",
    ) -> SlotOrder:
        pool = PoolKey("acme", image.digest, resources or Resources(memory_mib=64), Isolation.SHARED)
        return SlotOrder(slot_id or f"t-{uuid.uuid4().hex[:12]}", pool, image, "ab" * 32)

    async def start(self, order: SlotOrder) -> Probe:
        """Start a slot and wait for its guest."""
        self._doors.listen(order.slot_id)
        await self.launcher.start(order)
        return await self._doors.admit(order.slot_id)

    async def run(self, reference: str, **options: Any) -> tuple[SlotOrder, Probe]:
        """Resolve, order, start."""
        order = self.order(await self.images.resolve(reference), **options)
        return order, await self.start(order)

    def close(self) -> None:
        self._doors.close()


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait for something that must happen; fails by saying what did not."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 (it happens in another process)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s:g} s in vain: {what}") from None


def writable_mounts(proc_mounts: str) -> dict[str, str]:
    """The places of /proc/mounts that are mounted for writing, and the type of each.

    Without the single devices and the cgroups that an engine with user namespaces mounts so: who may write there is
    then a matter of their modes, which tests try.
    """
    mounts = [line.split() for line in proc_mounts.splitlines()]
    return {
        place: kind
        for _, place, kind, options, *_ in mounts
        if "rw" in options.split(",") and kind not in ("devtmpfs", "cgroup")
    }


def container_of(set_name: str, slot_id: str) -> str:
    """The name of a slot's container."""
    return f"gc-{set_name}-{installation_of(set_name)}-{slot_id}"


def containers(client: APIClient, set_name: str) -> list[str]:
    """The names of all containers of a set, ended ones too."""
    listed: Iterable[dict[str, Any]] = client.containers(
        all=True, filters={"label": f"org.general-compute.set={set_name}"}
    )
    return sorted(name for entry in listed for name in entry["Names"])


def volumes(client: APIClient, *, unused: bool = False) -> set[str]:
    """All volumes of the engine, other tests' as well; `unused`: those that no container has."""
    filters = {"dangling": True} if unused else {}
    return {volume["Name"] for volume in client.volumes(filters=filters)["Volumes"] or []}


def mounted_volumes(client: APIClient, set_name: str) -> set[str]:
    """The volumes that containers of a set have."""
    mounts = [
        mount
        for name in containers(client, set_name)
        for mount in client.inspect_container(name.lstrip("/"))["Mounts"]
    ]
    return {mount["Name"] for mount in mounts if mount["Type"] == "volume"}


async def left_no_volume(client: APIClient, before: set[str]) -> None:
    """Wait until no volume is unused but for those `before`: what other tests make beside is used, or goes."""
    await until(lambda: volumes(client, unused=True) <= before, "no volume is left")
