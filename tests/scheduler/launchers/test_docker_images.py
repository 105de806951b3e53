"""Images from a registry, a real one and a false one that stalls: pulled beside the callers, once, never for ever."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from docker import APIClient

from scheduler.errors import ImagePulling, ImageUnknown, RegistryNotAllowed, Unavailable
from scheduler.image import Image
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from scheduler.registry.settings import RegistryConfig
from tests.scheduler.launchers.rig import Files, ImageMaker, Rig, containers, folder_of, until
from tests.scheduler.registries import docker_registry

pytestmark = pytest.mark.docker


def registry_at(host: str) -> RegistryConfig:
    return RegistryConfig(name=host, url=f"http://{host}")


@asynccontextmanager
async def launched(settings: DockerSettings, **changes: object) -> AsyncIterator[Rig]:
    gone: list[tuple[str, str]] = []
    launcher = DockerLauncher(
        msgspec.structs.replace(settings, **changes),
        folder_of,
        lambda slot_id, reason: gone.append((slot_id, reason)),
    )
    await launcher.open()
    rig = Rig(launcher, gone)
    try:
        yield rig
    finally:
        await launcher.close()
        rig.close()


@pytest.fixture
async def pulling(docker_settings: DockerSettings, registry: str) -> AsyncIterator[Rig]:
    """A launcher that may pull from the registry."""
    async with launched(docker_settings, registries=(registry_at(registry),)) as rig:
        yield rig


def push(images: ImageMaker, registry: str, *changes: str, files: Files | None = None) -> str:
    """An image that only the registry holds; returns its reference."""
    reference = f"{registry}/acme/{os.urandom(5).hex()}:1"
    images.make(*changes, tag=reference, files=files)
    said = images.client.push(reference)
    assert "error" not in said, said
    images.remove(reference)
    return reference


async def resolved(rig: Rig, reference: str, timeout_s: float = 30.0) -> Image:
    """Ask as a caller does: again while the image is being pulled."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await rig.images.resolve(reference)
            except ImagePulling:
                await asyncio.sleep(0.02)


async def test_an_image_is_pulled_once_for_all_who_ask(
    pulling: Rig, images: ImageMaker, registry: str, set_name: str
) -> None:
    reference = push(images, registry, 'CMD ["/pulled"]')
    with pytest.raises(ImagePulling, match="is being pulled") as caught:
        await pulling.images.resolve(reference)
    assert caught.value.retry_after_s > 0
    found = await asyncio.gather(*(resolved(pulling, reference) for _ in range(20)))
    assert {image.cmd for image in found} == {("/pulled",)}
    image = found[0]
    assert image.digest.startswith("sha256:")
    assert image.digest != image.image_id
    by_digest = f"{reference.rpartition(':')[0]}@{image.digest}"
    assert (await pulling.images.resolve(by_digest)).digest == image.digest
    order, probe = await pulling.run(by_digest)
    assert await probe.ask("host") == "slot"
    await pulling.launcher.stop(order.slot_id)
    await until(lambda: not containers(images.client, set_name), "the slot is gone")
    images.client.remove_image(image.image_id, force=True)


async def test_an_image_is_pulled_by_digest(pulling: Rig, images: ImageMaker, registry: str) -> None:
    reference = push(images, registry, 'CMD ["/pulled"]')
    image = await resolved(pulling, reference)
    images.client.remove_image(image.image_id, force=True)
    again = await resolved(pulling, f"{reference.rpartition(':')[0]}@{image.digest}")
    assert again.digest == image.digest
    images.client.remove_image(image.image_id, force=True)


async def test_what_the_registry_does_not_have_is_unknown_with_its_reason(
    pulling: Rig, registry: str
) -> None:
    reference = f"{registry}/acme/nothing:1"
    for _ in range(2):
        with pytest.raises(ImageUnknown, match=r"refused .*acme/nothing:1: .*(unknown|not found)"):
            await resolved(pulling, reference)


async def test_nothing_is_pulled_without_leave(
    docker_settings: DockerSettings, images: ImageMaker, registry: str
) -> None:
    reference = push(images, registry, 'CMD ["/x"]')
    for allowed, error in (((), ImageUnknown), (("other.example",), RegistryNotAllowed)):
        registries = tuple(map(registry_at, allowed))
        async with launched(docker_settings, registries=registries) as rig:
            with pytest.raises(error, match=rf"not pulled from {registry}.*setting `registries`"):
                await rig.images.resolve(reference)
    async with launched(docker_settings, registries=(registry_at(registry),)) as rig:
        image = await resolved(rig, reference)
        images.client.remove_image(image.image_id, force=True)
        # Names no registry, so there is none to ask.
        with pytest.raises(ImageUnknown, match="no such image here"):
            await rig.images.resolve("no-such-image:1")


async def test_a_registry_that_is_down_is_not_the_caller_s_fault(docker_settings: DockerSettings) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    async with launched(docker_settings, registries=(registry_at(nobody),)) as rig:
        with pytest.raises(Unavailable, match=rf"{nobody} did not deliver .*refused") as caught:
            await resolved(rig, f"{nobody}/x:1")
        assert not isinstance(caught.value, ImagePulling)


async def test_a_registry_that_stalls_holds_up_nobody(
    docker_settings: DockerSettings, plain_image: str, client: APIClient
) -> None:
    """It takes connections and never says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        async with launched(docker_settings, registries=(registry_at(host),), pull_stall_s=1.0) as rig:
            with pytest.raises(ImagePulling):
                await rig.images.resolve(f"{host}/x:1")
            assert (await rig.images.resolve(plain_image)).reference == plain_image
            _, probe = await rig.run(plain_image)
            assert await probe.ask("host") == "slot"
            with pytest.raises(Unavailable) as caught:
                await resolved(rig, f"{host}/x:1")
            assert not isinstance(caught.value, ImagePulling)


async def test_closing_does_not_wait_for_a_pull(docker_settings: DockerSettings) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        async with asyncio.timeout(15), launched(docker_settings, registries=(registry_at(host),)) as rig:
            with pytest.raises(ImagePulling):
                await rig.images.resolve(f"{host}/x:1")


async def test_the_number_of_lookups_is_bounded(rig: Rig) -> None:
    asked = [rig.images.resolve(f"no-such-image:{n}") for n in range(400)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds <= {ImageUnknown, Unavailable}
    assert ImageUnknown in kinds
    with pytest.raises(ImageUnknown):
        await rig.images.resolve("no-such-image:1")


@pytest.mark.parametrize("folder", [Path("/nonexistent")])
async def test_a_seccomp_profile_that_is_missing_is_told_at_once(
    docker_settings: DockerSettings, folder: Path
) -> None:
    settings = msgspec.structs.replace(docker_settings, seccomp_profile=folder / "profile.json")
    with pytest.raises(FileNotFoundError, match=r"profile\.json"):
        await DockerLauncher(settings, folder_of, lambda slot_id, reason: None).open()


async def test_an_engine_is_never_sent_to_a_registry_that_is_not_listed(
    docker_settings: DockerSettings, registry: str
) -> None:
    """Whatever a reference names: the engine has the host's network."""
    with socket.socket() as canary:
        canary.bind(("127.0.0.1", 0))
        canary.listen(8)
        canary.setblocking(False)
        port = canary.getsockname()[1]
        async with launched(docker_settings, registries=(registry_at(registry),)) as rig:
            for host in (f"127.0.0.1:{port}", f"127.1:{port}", f"[::1]:{port}", f"localhost:{port}"):
                with pytest.raises(RegistryNotAllowed):
                    await rig.images.resolve(f"{host}/acme/cat:1")
        with pytest.raises(BlockingIOError):
            canary.accept()


HTPASSWD = "robot:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
"""User robot, password `secret`."""


async def test_an_image_is_pulled_with_the_set_s_login(
    docker_settings: DockerSettings, images: ImageMaker, tmp_path: Path
) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    (tmp_path / "password").write_text("secret\n")
    settings = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}\n"
    with docker_registry(tmp_path, settings) as host:
        reference = f"{host}/acme/{os.urandom(5).hex()}:1"
        images.make('CMD ["/pulled"]', tag=reference)
        login = {"username": "robot", "password": "secret"}
        said = images.client.push(reference, auth_config=login)
        assert "error" not in said, said
        images.remove(reference)
        async with launched(docker_settings, registries=(registry_at(host),)) as rig:
            with pytest.raises(ImageUnknown, match="refused"):
                await resolved(rig, reference)
        known = msgspec.structs.replace(
            registry_at(host), username="robot", password_file=str(tmp_path / "password")
        )
        async with launched(docker_settings, registries=(known,)) as rig:
            image = await resolved(rig, reference)
        assert image.cmd == ("/pulled",)
        images.client.remove_image(image.image_id, force=True)
