"""The layouts of slots on a real engine: whose their places are, and what becomes of what the image has there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from docker import APIClient

from scheduler.errors import EngineRefused, EngineUnavailable, ImageUnknown, ImageUnusable
from scheduler.image import Image
from scheduler.images import layouts as layouts_module
from scheduler.images.look import MAX_FILE_BYTES, ImageFile
from scheduler.images.places import Layout
from scheduler.images.user import Owner
from scheduler.launchers import docker_layouts
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_archive import read_file
from scheduler.launchers.docker_config import DockerSettings
from scheduler.launchers.docker_engine import Engine, Listed
from scheduler.launchers.docker_layouts import DockerLayouts
from tests.scheduler.launchers.rig import (
    Files,
    ImageMaker,
    Rig,
    containers,
    folder_of,
    left_no_volume,
    until,
    volumes,
)

T = TypeVar("T")

pytestmark = pytest.mark.docker

ROOMS: Files = {
    "etc/passwd": b"root:x:0:0::/root:/none\napp:x:1234:2345::/home/app:/none\n",
    "etc/group": b"root:x:0:\napp:x:2345:\nothers:x:3456:app\n",
    "r755": 0o755,
    "r700": 0o700,
    "r777": 0o777,
    "r2775": 0o2775,
    "srv": 0o755,
}
PLACES = ("/r755", "/r700", "/r777", "/r2775", "/new", "/srv", "/new/within")
CHANGES = (
    'CMD ["/x"]',
    "VOLUME /r755 /r700 /r777 /r2775 /new /new/within",
    "LABEL org.general-compute.writable=/srv",
)


@pytest.mark.parametrize(
    ("user", "process", "owner"),
    [
        ("", "0 0", "0:0"),
        ("root", "0 0", "0:0"),
        ("0:3456", "0 3456", "0:3456"),
        ("1000", "1000 0", "1000:0"),
        ("1000:1001", "1000 1001", "1000:1001"),
        # The engine finds its primary group; we don't look for it, for its uid will do.
        ("1234", "1234 2345", "1234:0"),
        ("1000:others", "1000 3456", "1000:3456"),
        ("app", "1234 2345", "1234:2345"),
        ("app:app", "1234 2345", "1234:2345"),
        ("app:others", "1234 3456", "1234:3456"),
        ("app:77", "1234 77", "1234:77"),
    ],
)
@pytest.mark.parametrize("workdir", ["/", "/new/work"])
async def test_every_user_can_write_to_its_places(
    rig: Rig, images: ImageMaker, user: str, process: str, owner: str, workdir: str
) -> None:
    _, probe = await rig.run(images.make(*CHANGES, f"USER {user or 0}", f"WORKDIR {workdir}", files=ROOMS))
    assert await probe.ask("id") == f"1 {process}"
    assert await probe.ask("cwd") == workdir
    for place in PLACES:
        assert (place, await probe.ask(f"owner {place}")) == (place, owner)
        assert (place, await probe.ask(f"write {place}/new")) == (place, "ok")
        assert await probe.ask(f"unlink {place}/new") == "ok"
    for place, whose in (("/tmp", owner), ("/dev/shm", "0:0")):
        assert (place, await probe.ask(f"owner {place}")) == (place, whose)
        assert (place, await probe.ask(f"write {place}/new")) == (place, "ok")
    assert await probe.ask("write /etc/new") == "errno EROFS"


@pytest.mark.parametrize("user", ["0", "1000", "1234", "app", "app:others"])
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o775, 0o1777, 0o777, None])
async def test_every_user_can_write_to_tmp_whatever_the_image_has_there(
    rig: Rig, images: ImageMaker, user: str, mode: int | None
) -> None:
    files: Files = {**ROOMS} if mode is None else {**ROOMS, "tmp": mode}
    for workdir in ("/", "/tmp", "/tmp/job/deep"):
        reference = images.make('CMD ["/x"]', f"USER {user}", f"WORKDIR {workdir}", files=files)
        _, probe = await rig.run(reference)
        assert await probe.ask("cwd") == workdir
        for place in {"/tmp", "/dev/shm", *({workdir} - {"/"})}:
            assert (place, await probe.ask(f"write {place}/new")) == (place, "ok")


@pytest.mark.parametrize(
    ("user", "files", "why"),
    [
        ("nobody-here", {}, "its USER does not exist.*unable to find user nobody-here: no matching entries"),
        ("app:none-here", {}, "the group of its USER does not exist.*unable to find group none-here"),
        ("1000:none-here", {}, "the group of its USER does not exist"),
        ("app", {"etc/passwd": "/nowhere"}, "USER does not exist.*the image has no file /etc/passwd"),
        ("app:app", {"etc/group": "/nowhere"}, "group of its USER does not exist.*no file /etc/group"),
        ("app", {"etc/passwd": None, "etc/passwd/app": b"x"}, "/etc/passwd is not a regular file"),
        ("app", {"etc/passwd": "/dev"}, "its USER cannot be looked up: /etc/passwd is not a regular file"),
        ("app", {"etc/passwd": b"x" * (MAX_FILE_BYTES + 1)}, "/etc/passwd has more than 1048576 bytes"),
        ("app", {"etc/passwd": "/etc/passwd"}, "in a circle"),
        ("app", {"etc/passwd": "/srv/file/below", "srv/file": b"x"}, "cannot be started"),
        ("4294967296", {}, "its USER is out of range"),
        ("app", {"etc/passwd": b"app:x:4294967295:0::/:"}, "its USER is out of range"),
    ],
)
async def test_users_that_cannot_be_told_are_the_images_fault_and_leave_nothing(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str, user: str, files: Files, why: str
) -> None:
    reference = images.make(*CHANGES, f"USER {user}", files={**ROOMS, **files})
    before = volumes(client, unused=True)
    image = await rig.images.resolve(reference)
    for _ in range(2):
        order = rig.order(image)
        with pytest.raises(ImageUnusable, match=why) as caught:
            await rig.launcher.start(order)
        assert reference in str(caught.value)
        assert "merged" not in str(caught.value)
    assert containers(client, set_name) == []
    await left_no_volume(client, before)


@pytest.mark.parametrize("target", ["/usr/passwd", "../usr/passwd", "../../../../usr/link"])
async def test_links_are_followed_within_the_image(rig: Rig, images: ImageMaker, target: str) -> None:
    moved: Files = {"usr": None, "usr/passwd": b"app:x:77:88::/:\n", "usr/link": "passwd"}
    reference = images.make(*CHANGES, "USER app", files={**ROOMS, "etc/passwd": target, **moved})
    _, probe = await rig.run(reference)
    assert await probe.ask("id") == "1 77 88"
    assert await probe.ask("owner /r755") == "77:88"


async def test_the_largest_file_that_is_read_is_read_whole(rig: Rig, images: ImageMaker) -> None:
    last = b"\napp:x:77:88::/:"
    filled = b"#" * 60_000 + b"\n"
    file = (filled * (MAX_FILE_BYTES // len(filled) + 1))[: MAX_FILE_BYTES - len(last)] + last
    assert len(file) == MAX_FILE_BYTES
    _, probe = await rig.run(images.make(*CHANGES, "USER app", files={**ROOMS, "etc/passwd": file}))
    assert await probe.ask("owner /r755") == "77:88"


class Looks(Engine):
    """A real engine that counts how often it is looked into an image, and fails when it is told to."""

    def __init__(self, settings: DockerSettings) -> None:
        super().__init__(settings)
        self.count = 0
        self.failure: Exception | None = None

    async def look(self, name: str, body: dict[str, Any], look: Callable[[APIClient, str], T]) -> T:
        self.count += 1
        if self.failure is not None:
            raise self.failure
        return await super().look(name, body, look)


@pytest.fixture
def looks(docker_settings: DockerSettings) -> Iterator[Looks]:
    looks = Looks(docker_settings)
    yield looks
    looks.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from images."""
    paths: list[str] = []

    def reading(client: APIClient, container: str, path: str, most_bytes: int) -> ImageFile:
        paths.append(path)
        return read_file(client, container, path, most_bytes)

    monkeypatch.setattr(docker_layouts, "read_file", reading)
    return paths


async def image_of(rig: Rig, images: ImageMaker, *changes: str, files: Files | None = None) -> Image:
    return await rig.images.resolve(images.make(*changes, files={**ROOMS, **(files or {})}))


async def test_images_are_looked_into_only_where_it_matters(
    rig: Rig, images: ImageMaker, looks: Looks, read: list[str]
) -> None:
    layouts = DockerLayouts(looks)
    for changes, owner in (
        (["USER 0"], Owner(0, 0)),
        (["USER root", "VOLUME /tmp", "WORKDIR /srv"], Owner(0, 0)),
        (["USER 1000"], Owner(1000, 0)),
        (["USER 1000:5", "LABEL org.general-compute.writable=/srv"], Owner(1000, 5)),
    ):
        # No HOME that could be written to.
        image = await image_of(rig, images, "ENV HOME=/tmp", *changes)
        assert (await layouts.layout(image)).owner == owner
    assert (looks.count, read) == (0, [])
    for changes, paths in (
        (["USER 0"], ["/etc/passwd"]),
        (["USER 1000", "ENV HOME="], ["/etc/passwd"]),
        (["USER 1000", "ENV HOME=/srv"], []),
        (["USER 1000", "VOLUME /r755", "ENV HOME=/tmp"], []),
        (["USER app"], ["/etc/passwd"]),
        (["USER 5:app", "ENV HOME=/tmp"], ["/etc/group"]),
        (["USER app:app"], ["/etc/group", "/etc/passwd"]),
    ):
        read.clear()
        await layouts.layout(await image_of(rig, images, *changes))
        assert sorted(read) == paths
    assert looks.count == 7


async def test_what_is_remembered_of_homes_is_bounded(
    rig: Rig, images: ImageMaker, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts_module, "MAX_REMEMBERED_BYTES", 2_500)
    layouts = DockerLayouts(looks)
    first, second, third = [
        await image_of(
            rig, images, "USER app", f"ENV N={n}", files={"home/app": None, "home/app/x": b"x" * 1000}
        )
        for n in range(3)
    ]
    for image in (first, second, first, third, first):
        assert b"x" * 1000 in (await layouts.layout(image)).content
    assert looks.count == 3
    await layouts.layout(second)
    assert looks.count == 4


@pytest.mark.parametrize("bytes_more", [0, 1])
async def test_a_home_is_copied_up_to_the_bound(
    docker_settings: DockerSettings, rig: Rig, images: ImageMaker, bytes_more: int
) -> None:
    engine = Looks(msgspec.structs.replace(docker_settings, home_content_kib=2))
    home: Files = {
        "home/app": 0o700,
        "home/app/.cache": None,
        "home/app/.cache/v1": b"x" * 1024,
        "home/app/link": ".cache/v1",
        "home/app/more": b"y" * (1024 - len(".cache/v1") + bytes_more),
    }
    found = await DockerLayouts(engine).layout(await image_of(rig, images, "USER app", files=home))
    engine.close()
    if not bytes_more:
        assert "/home/app" in found.places
        return
    # Too much for all of it; .cache alone is within the bound.
    within = {f"/home/app/{name}" for name in (".cache", ".config", ".local/share", ".local/state")}
    assert within <= set(found.places)
    assert "/home/app" not in found.places
    assert b"x" * 1024 in found.content
    assert b"yy" not in found.content


async def test_first_starts_share_one_look_that_is_remembered(
    rig: Rig, images: ImageMaker, looks: Looks, client: APIClient, set_name: str
) -> None:
    layouts = DockerLayouts(looks)
    image = await image_of(rig, images, *CHANGES, "USER app:others")
    asked = [asyncio.create_task(layouts.layout(image)) for _ in range(8)]
    await asyncio.sleep(0)
    asked[0].cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert [each.owner for each in found[1:] if isinstance(each, Layout)] == [Owner(1234, 3456)] * 7
    assert (await layouts.layout(image)).owner == Owner(1234, 3456)
    assert looks.count == 1
    assert layouts.looking == set()
    assert containers(client, set_name) == []


async def test_what_is_wrong_with_an_image_is_remembered_and_what_fails_here_is_not(
    rig: Rig, images: ImageMaker, looks: Looks
) -> None:
    layouts = DockerLayouts(looks)
    image = await image_of(rig, images, *CHANGES, "USER nobody-here")
    for failure in (EngineUnavailable(), EngineRefused()):
        looks.failure = failure
        for _ in range(2):
            with pytest.raises(type(failure)):
                await layouts.layout(image)
    looks.failure = None
    looks.count = 0
    for _ in range(3):
        with pytest.raises(ImageUnusable, match="nobody-here"):
            await layouts.layout(image)
    assert looks.count == 1


async def test_no_more_is_remembered_than_the_bound(
    rig: Rig, images: ImageMaker, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts_module, "MAX_REMEMBERED", 2)
    layouts = DockerLayouts(looks)
    first, second, third = [await image_of(rig, images, *CHANGES, "USER app", f"ENV N={n}") for n in range(3)]
    for image in (first, second, first, third, first):
        assert (await layouts.layout(image)).owner == Owner(1234, 2345)
    assert looks.count == 3
    # The one that was asked for least lately had to go.
    await layouts.layout(second)
    assert looks.count == 4


async def test_an_image_deleted_before_the_look_is_unknown(rig: Rig, images: ImageMaker) -> None:
    image = await image_of(rig, images, *CHANGES, "USER app")
    images.remove(image.reference)
    with pytest.raises(ImageUnknown, match=image.reference):
        await rig.launcher.start(rig.order(image))


async def test_a_look_under_way_is_left_alone_and_a_cancelled_start_takes_it_away(
    docker_settings: DockerSettings,
    images: ImageMaker,
    client: APIClient,
    set_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = 0
    looked: list[list[str]] = []
    list_slots = Engine.list_slots

    async def counting(engine: Engine) -> list[Listed]:
        nonlocal listed
        found = await list_slots(engine)
        listed += 1
        return found

    def slow(client: APIClient, container: str, path: str, most_bytes: int) -> ImageFile:
        # As long as it takes the launcher to compare what the engine lists with what it knows of, twice.
        begun, deadline = listed, time.monotonic() + 30
        while listed < begun + 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        looked.append(containers(client, set_name))
        return read_file(client, container, path, most_bytes)

    monkeypatch.setattr(Engine, "list_slots", counting)
    monkeypatch.setattr(docker_layouts, "read_file", slow)
    launcher = DockerLauncher(
        msgspec.structs.replace(docker_settings, relist_s=0.05), folder_of, lambda slot_id, reason: None
    )
    await launcher.open()
    rig = Rig(launcher, [])
    try:
        image = await image_of(rig, images, *CHANGES, "USER app")
        starting = asyncio.create_task(launcher.start(rig.order(image)))
        await until(lambda: bool(containers(client, set_name)), "the look begins")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        probe = await rig.start(rig.order(image))
        assert await probe.ask("owner /r755") == "1234:2345"
        assert len(looked) == 1
        assert len(looked[0]) == 1
        assert "look-" in looked[0][0]
        await until(lambda: len(containers(client, set_name)) == 1, "only the second slot is left")
    finally:
        await launcher.close()
        rig.close()
    assert containers(client, set_name) == []
