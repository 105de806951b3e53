"""One suite over both sources of images: a real engine, and a real registry asked by HTTP alone."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import pytest

from scheduler.errors import BadRequest, ImageUnknown, ImageUnusable, Unavailable
from scheduler.image import Image
from scheduler.images.contract import ImageSource, LayoutSource
from scheduler.images.places import Layout
from scheduler.images.user import Owner
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from scheduler.launchers.docker_engine import Engine
from scheduler.launchers.docker_layouts import DockerLayouts
from scheduler.registry.allowed import AllowList
from scheduler.registry.images import RegistryImages
from scheduler.registry.layouts import RegistryLayouts
from scheduler.registry.settings import RegistryConfig
from tests.ports import free_port
from tests.scheduler.launchers.rig import Files, ImageMaker, folder_of, tar_of
from tests.scheduler.registries import built, push

pytestmark = pytest.mark.docker

USERS: Files = {
    "etc": None,
    "etc/passwd": b"root:x:0:0::/root:/none\napp:x:1234:2345::/home/app:/none\n",
    "etc/group": b"root:x:0:\nothers:x:3456:app\n",
}


class SourceStand(ABC):
    """A source of images, open, and what holds its images, as the tests may use it."""

    images: ImageSource
    layouts: LayoutSource

    @abstractmethod
    async def hold(self, config: dict[str, Any], *layers: bytes, name: str = "", **fields: Any) -> str:
        """Have an image; returns its reference."""

    @abstractmethod
    def unknown(self) -> str:
        """A reference that names nothing here."""

    @abstractmethod
    async def close(self) -> None: ...

    async def laid_out(self, config: dict[str, Any], *layers: Files) -> Layout:
        reference = await self.hold(config, *map(tar_of, layers))
        return await self.layouts.layout(await self.images.resolve(reference))


class EngineStand(SourceStand):
    def __init__(self, settings: DockerSettings, maker: ImageMaker, engine: Engine) -> None:
        self._maker = maker
        self.launcher = DockerLauncher(settings, folder_of, lambda slot_id, reason: None)
        self.images = self.launcher.images
        self._engine = engine
        self._layouts = DockerLayouts(engine)
        self.layouts = self._layouts

    async def hold(self, config: dict[str, Any], *layers: bytes, name: str = "", **fields: Any) -> str:
        reference = name or f"gc-test-{os.urandom(5).hex()}:1"
        await asyncio.to_thread(self._maker.load_layers, reference, config, *layers, **fields)
        return reference

    def unknown(self) -> str:
        return f"gc-test-{os.urandom(5).hex()}:1"

    async def close(self) -> None:
        await self._layouts.close()
        await self.launcher.close()
        self._engine.close()


class RegistryStand(SourceStand):
    def __init__(self, host: str) -> None:
        self._host = host
        self._images = RegistryImages(AllowList([RegistryConfig(name=host, url=f"http://{host}")]), "amd64")
        self.images = self._images
        self._layouts = RegistryLayouts(self._images, volume_bytes=256 << 20, home_bytes=1 << 20)
        self.layouts = self._layouts

    async def hold(self, config: dict[str, Any], *layers: bytes, name: str = "", **fields: Any) -> str:
        reference = name or self.unknown()
        repository, _, tag = reference.removeprefix(self._host + "/").partition(":")
        await asyncio.to_thread(push, self._host, repository, tag, built(config, *layers, **fields))
        return reference

    def unknown(self) -> str:
        return f"{self._host}/acme/{os.urandom(5).hex()}:1"

    async def close(self) -> None:
        await self._layouts.close()
        await self._images.close()


@pytest.fixture(params=["engine", "registry"])
async def source(
    request: pytest.FixtureRequest, docker_settings: DockerSettings, images: ImageMaker, registry: str
) -> AsyncIterator[SourceStand]:
    if request.param == "registry":
        stand: SourceStand = RegistryStand(registry)
    else:
        engine = Engine(docker_settings)
        await engine.learn()
        stand = EngineStand(docker_settings, images, engine)
        await stand.launcher.open()
    yield stand
    await stand.close()


CONFIG = {
    "Entrypoint": ["/bin/cat", "-u"],
    "Cmd": ["-"],
    "Env": ["PATH=/bin", "HOME=/h"],
    "User": "12:34",
    "WorkingDir": "/w",
    "Volumes": {"/data": {}, "/cache": {}},
    "Labels": {"org.general-compute.isolation": "fresh", "n": "1"},
}


async def test_the_configuration_is_the_image_s(source: SourceStand) -> None:
    image = await source.images.resolve(await source.hold(CONFIG, tar_of(USERS)))
    assert (image.entrypoint, image.cmd) == (("/bin/cat", "-u"), ("-",))
    assert (image.env, image.user, image.workdir) == (("PATH=/bin", "HOME=/h"), "12:34", "/w")
    assert image.volumes == ("/cache", "/data")
    assert image.labels == CONFIG["Labels"]
    assert image.digest.startswith("sha256:")
    assert image.image_id.startswith("sha256:")


async def test_one_image_has_one_id_in_both(source: SourceStand) -> None:
    """The engine's image id is the digest of the configuration, which the registry names."""
    first = await source.images.resolve(await source.hold({"Cmd": ["/a"]}, tar_of(USERS)))
    same = await source.images.resolve(await source.hold({"Cmd": ["/a"]}, tar_of(USERS)))
    other = await source.images.resolve(await source.hold({"Cmd": ["/b"]}, tar_of(USERS)))
    assert first.image_id == same.image_id != other.image_id


async def test_an_image_that_nobody_has_is_unknown(source: SourceStand) -> None:
    reference = source.unknown()
    with pytest.raises(ImageUnknown, match="no such image"):
        await source.images.resolve(reference)


@pytest.mark.parametrize("text", ["", "Cat:1", "cat:", "a//b", "cat@sha256:12", "x" * 600])
async def test_what_is_no_reference_is_the_caller_s_mistake(source: SourceStand, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await source.images.resolve(text)
    assert caught.value.field == "image"


async def test_a_moved_tag_is_seen_within_seconds(source: SourceStand) -> None:
    reference = await source.hold({"Cmd": ["/old"]}, tar_of(USERS))
    before = await source.images.resolve(reference)
    await source.hold({"Cmd": ["/new"]}, tar_of(USERS), name=reference)
    async with asyncio.timeout(60):
        while (after := await source.images.resolve(reference)).cmd != ("/new",):  # noqa: ASYNC110 (the source acts)
            await asyncio.sleep(0.05)
    assert (before.cmd, before.image_id != after.image_id) == (("/old",), True)


async def test_an_image_of_another_architecture_is_unusable(source: SourceStand) -> None:
    with pytest.raises(ImageUnusable, match="built for arm64"):
        await source.images.resolve(await source.hold({}, tar_of(USERS), architecture="arm64"))


async def test_a_place_that_no_slot_gives_is_unusable(source: SourceStand) -> None:
    with pytest.raises(ImageUnusable, match="VOLUME"):
        await source.images.resolve(await source.hold({"Volumes": {"/proc/x": {}}}, tar_of(USERS)))


# Layouts


async def test_a_configuration_that_says_enough_needs_no_look(source: SourceStand) -> None:
    assert await source.laid_out({"User": "1:2", "Env": ["HOME=/tmp"]}, USERS) == Layout(
        ("/tmp", "/dev/shm"), owner=Owner(1, 2)
    )


@pytest.mark.parametrize(
    ("user", "owner"),
    [("app", Owner(1234, 2345)), ("app:others", Owner(1234, 3456)), ("1000:others", Owner(1000, 3456))],
)
async def test_a_user_by_name(source: SourceStand, user: str, owner: Owner) -> None:
    found = await source.laid_out({"User": user, "Volumes": {"/v": {}}}, USERS)
    assert (found.owner, found.kept) == (owner, ())
    assert "/v" in found.places


async def test_a_user_who_is_not_there(source: SourceStand) -> None:
    with pytest.raises(ImageUnusable, match="unable to find user nobody-here"):
        await source.laid_out({"User": "nobody-here"}, USERS)


async def test_users_behind_links(source: SourceStand) -> None:
    files: Files = {
        "etc": None,
        "etc/passwd": "../usr/share/passwd",
        "usr": None,
        "usr/share": "/opt/share",
        "opt": None,
        "opt/share": None,
        "opt/share/passwd": USERS["etc/passwd"],
    }
    found = await source.laid_out({"User": "app"}, files)
    assert found.owner == Owner(1234, 2345)


VOLUME = {"Volumes": {"/v": {}}, "Env": ["HOME=/tmp"]}


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        pytest.param([{"v": None, "v/a": b"x"}], ("/v",), id="a file"),
        pytest.param([{"v": None, "v/a": None, "v/b": None}], (), id="folders"),
        pytest.param([{"v": None, "v/a": None, "v/a/link": "/etc"}], ("/v",), id="a link"),
        pytest.param(
            [{"v": None, "v/a": b"x"}, {"v/.wh.a": b""}], (), id="a file that a later layer removes"
        ),
        pytest.param(
            [{"v": None, "v/a": b"x"}, {"v": None, "v/.wh..wh..opq": b""}], (), id="an emptied folder"
        ),
        pytest.param(
            [{"v": None, "v/a": b"x"}, {"v": None, "v/b": b"y", "v/.wh..wh..opq": b""}],
            ("/v",),
            id="a folder that is emptied and filled",
        ),
        pytest.param([{"v": None, "v/a": b"x"}, {".wh.v": b""}], (), id="a folder that is removed"),
        pytest.param(
            [{"v": None, "v/a": b"x"}, {".wh.v": b""}, {"v": None, "v/c": b""}], ("/v",), id="and again"
        ),
        pytest.param([{"v": None}, {"v": None, "v/d": b""}], ("/v",), id="a file of a later layer"),
        pytest.param([{}], (), id="nothing"),
    ],
)
async def test_the_files_of_a_volume(source: SourceStand, layers: list[Files], kept: tuple[str, ...]) -> None:
    found = await source.laid_out(VOLUME, USERS, *layers)
    assert found.kept == kept
    assert ("/v" in found.places) == (not kept)


async def test_folders_of_a_volume_are_there_in_the_slot(source: SourceStand) -> None:
    found = await source.laid_out(VOLUME, USERS, {"v": None, "v/in": None, "v/out": None, "v/out/deep": None})
    assert {"/v", "/v/in", "/v/out/deep"} <= set(found.places)


async def test_a_home_begins_with_its_files(source: SourceStand) -> None:
    home: Files = {"root": None, "root/.config": None, "root/.config/rc": b"rc", "root/link": ".config/rc"}
    found = await source.laid_out({}, USERS, home, {"root/.config/second": b"2"})
    assert "/root" in found.places
    assert b"rc" in found.content
    assert b"second" in found.content
    removed = await source.laid_out({}, USERS, home, {"root/.config/.wh.rc": b""})
    assert b"rc\0rc" not in removed.content


async def test_a_home_that_only_passwd_tells(source: SourceStand) -> None:
    files: Files = {
        "etc": None,
        "etc/passwd": b"svc:x:7:8::/srv/home:/none\n",
        "srv": None,
        "srv/home": None,
        "srv/home/model": b"weights",
    }
    found = await source.laid_out({"User": "svc"}, files)
    assert (found.owner, "/srv/home" in found.places) == (Owner(7, 8), True)
    assert b"weights" in found.content


async def test_a_large_home_stays_as_it_is(source: SourceStand) -> None:
    found = await source.laid_out({}, USERS, {"root": None, "root/big": b"x" * (2 << 20)})
    assert "/root" not in found.places
    assert {"/root/.cache", "/root/.config"} <= set(found.places)
    assert found.content == b""


async def test_both_sources_lay_out_an_ordinary_image_alike(
    docker_settings: DockerSettings, images: ImageMaker, registry: str
) -> None:
    config = {"User": "app", "Volumes": {"/v": {}, "/w": {}}, "WorkingDir": "/home/app/src"}
    home: Files = {"home": None, "home/app": 0o700, "home/app/.profile": b"p", "home/app/src": 0o555}
    volumes: Files = {"v": None, "v/x": b"x", "w": None}
    layers = [tar_of(files) for files in (USERS, home, volumes)]
    engine = Engine(docker_settings)
    await engine.learn()
    found: list[Layout] = []
    stands: list[SourceStand] = [EngineStand(docker_settings, images, engine), RegistryStand(registry)]
    resolved: list[Image] = []
    for stand in stands:
        resolved.append(await stand.images.resolve(await stand.hold(config, *layers)))
        found.append(await stand.layouts.layout(resolved[-1]))
        await stand.close()
    assert found[0] == found[1]
    assert found[0].places == ("/tmp", "/w", "/dev/shm", "/home/app", "/home/app/src")
    assert resolved[0].image_id == resolved[1].image_id


async def test_a_registry_that_goes_away_between_is_not_the_image_s_fault() -> None:
    nobody = f"127.0.0.1:{free_port()}"
    stand = RegistryStand(nobody)
    with pytest.raises(Unavailable):
        await stand.images.resolve(f"{nobody}/cat:1")
    await stand.close()
