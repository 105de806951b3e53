"""What an image holds in its VOLUMEs: on a real engine its slots can read it, share one copy, and leave nothing."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from docker import APIClient

from scheduler.errors import EngineRefused, EngineUnavailable, ImageUnknown, ImageUnusable
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from tests.scheduler.launchers.rig import Files, ImageMaker, Rig, containers, folder_of, until, volumes

pytestmark = pytest.mark.docker

FILES: Files = {
    "data/deep": 0o700,
    "data/deep/link": "/etc/passwd",
    "data/out": 0o777,
    "etc/passwd": b"root:x:0:0::/root:\napp:x:7:8::/:\n",
}
HOMES = {"0": ["/root"], "1000": [], "app": []}
HELD = ('CMD ["/x"]', "VOLUME /data")


def held(client: APIClient, set_name: str) -> list[str]:
    return [name.lstrip("/") for name in containers(client, set_name) if "-hold-" in name]


def copies(client: APIClient, set_name: str) -> set[str]:
    """The volumes on the host that hold the content for slots of this set. Others may come and go beside."""
    mounts = [mount for name in held(client, set_name) for mount in client.inspect_container(name)["Mounts"]]
    return {mount["Name"] for mount in mounts}


@pytest.mark.parametrize("user", ["0", "1000", "app"])
async def test_it_is_there_to_be_read_only(rig: Rig, images: ImageMaker, user: str) -> None:
    _, probe = await rig.run(images.make(*HELD, f"USER {user}", "WORKDIR /data/new", files=FILES))
    assert await probe.ask("read /data/from-image") == "of the image\n"
    assert sorted((await probe.ask("list /data")).split()) == ["deep", "from-image", "new", "out"]
    assert await probe.ask("cwd") == "/data/new"
    for path in ("/data/new-file", "/data/out/file", "/data/new/file"):
        assert await probe.ask(f"write {path}") == "errno EROFS"
    assert await probe.ask("unlink /data/from-image") == "errno EROFS"
    assert await probe.places() == [*HOMES[user], "/tmp", "/dev/shm"]


async def test_who_asks_for_an_empty_folder_gets_it(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    label = "LABEL org.general-compute.writable=/data"
    _, probe = await rig.run(images.make(*HELD, label, "USER 1000", files=FILES))
    assert await probe.ask("list /data") == ""
    assert await probe.ask("write /data/new") == "ok"
    assert held(client, set_name) == []


async def test_a_place_within_it(rig: Rig, images: ImageMaker) -> None:
    label = "LABEL org.general-compute.writable=/data/out"
    _, probe = await rig.run(images.make(*HELD, label, "USER 1000", files=FILES))
    assert await probe.ask("read /data/from-image") == "of the image\n"
    assert await probe.ask("write /data/out/new") == "ok"
    assert await probe.ask("write /data/new") == "errno EROFS"


async def test_folders_that_hold_nothing_can_be_written_to(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    rooms: Files = {"room": 0o755, "room/in": 0o755, "room/out": 0o755, "room/out/deep": 0o700}
    _, probe = await rig.run(images.make('CMD ["/x"]', "VOLUME /room", "USER 1000", files=rooms))
    for folder in ("/room", "/room/in", "/room/out/deep"):
        assert (folder, await probe.ask(f"write {folder}/new")) == (folder, "ok")
    assert held(client, set_name) == []


@pytest.mark.parametrize(
    ("volume", "files"),
    [
        ("/v", {"v": "/gc"}),
        ("/v/gc", {"v": "/"}),
        ("/v/gc", {"v": "."}),
        ("/v/guest", {"v": "gc"}),
        ("/etc/v/gc", {"etc/v": ".."}),
    ],
)
async def test_an_image_cannot_put_a_guest_of_its_own_in_the_place_of_ours(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str, volume: str, files: Files
) -> None:
    theirs: Files = {"gc": None, "gc/guest": b"#!theirs", "gc/more": b"theirs"}
    if volume == "/v/guest":
        theirs = {"gc": None, "gc/guest": None, "gc/guest/file": b"theirs"}
    reference = images.make('CMD ["/x"]', f"VOLUME {volume}", files={**theirs, **files})
    try:
        _, probe = await rig.run(reference)
    except (EngineRefused, ImageUnusable):
        pass
    else:
        assert (await probe.ask("link /proc/self/exe")) == "/gc/guest"
        assert await probe.ask("read /gc/more") == "errno ENOENT"
    assert held(client, set_name) == []


async def test_slots_share_one_copy_that_goes_with_the_last_of_them(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    image = await rig.images.resolve(images.make(*HELD, files=FILES))
    orders = [rig.order(image) for _ in range(3)]
    probes = await asyncio.gather(*(rig.start(order) for order in orders))
    assert len(held(client, set_name)) == 1
    made = copies(client, set_name)
    assert len(made) == 1
    await rig.launcher.stop(orders[0].slot_id)
    await probes[1].end("exit 0")
    await until(lambda: len(rig.gone) == 1, "the second slot is gone")
    assert await probes[2].ask("read /data/from-image") == "of the image\n"
    assert len(held(client, set_name)) == 1
    await rig.launcher.stop(orders[2].slot_id)
    await until(lambda: not containers(client, set_name), "its container is removed")
    await until(lambda: not made & volumes(client), "the copy is removed")
    # And again, from the start.
    probe = await rig.start(rig.order(image))
    assert await probe.ask("read /data/from-image") == "of the image\n"
    made = copies(client, set_name)
    await rig.launcher.close()
    assert containers(client, set_name) == []
    assert made
    assert not made & volumes(client)


async def test_a_copy_that_somebody_removed_is_made_again(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    image = await rig.images.resolve(images.make(*HELD, files=FILES))
    first = rig.order(image)
    probes = [await rig.start(first)]
    made = copies(client, set_name)
    for name in held(client, set_name):
        client.remove_container(name, force=True, v=True)
    probes += [await rig.start(rig.order(image)) for _ in range(2)]
    for probe in probes:
        assert await probe.ask("read /data/from-image") == "of the image\n"
    assert len(held(client, set_name)) == 1
    made |= copies(client, set_name)
    assert len(made) == 2
    await rig.launcher.stop(first.slot_id)
    assert await probes[2].ask("read /data/from-image") == "of the image\n"
    await rig.launcher.close()
    await until(lambda: not made & volumes(client), "both copies are removed")


async def test_a_killed_set_leaves_what_the_next_one_removes(
    docker_settings: DockerSettings, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    reference = images.make(*HELD, files=FILES)
    launchers = [DockerLauncher(docker_settings, folder_of, lambda slot_id, reason: None) for _ in range(2)]
    rigs = [Rig(launcher, []) for launcher in launchers]
    try:
        await launchers[0].open()
        await rigs[0].run(reference)
        made = copies(client, set_name)
        assert made
        # As if it were another process's: it knows nothing of the first.
        await launchers[1].open()
        assert containers(client, set_name) == []
        assert not made & volumes(client)
    finally:
        for rig in reversed(rigs):
            await rig.launcher.close()
            rig.close()


async def test_more_than_the_bound_is_refused_with_the_way_out(
    docker_settings: DockerSettings, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    launcher = DockerLauncher(
        msgspec.structs.replace(docker_settings, volume_content_mib=2),
        folder_of,
        lambda slot_id, reason: None,
    )
    await launcher.open()
    rig = Rig(launcher, [])
    try:
        for mib, fits in ((1, True), (3, False)):
            image = await launcher.images.resolve(images.make(*HELD, files={"data/big": b"x" * (mib << 20)}))
            if fits:
                await rig.start(rig.order(image))
                continue
            with pytest.raises(
                ImageUnusable, match=r"VOLUME /data has more than 2 MiB .* take the VOLUME out"
            ):
                await launcher.start(rig.order(image))
    finally:
        await launcher.close()
        rig.close()
    assert containers(client, set_name) == []


async def test_a_start_that_fails_leaves_no_copy(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    image = await rig.images.resolve(images.make(*HELD, "USER 1000", files=FILES))
    order = rig.order(image)
    probe = await rig.start(order)
    await rig.launcher.stop(order.slot_id)
    probe.close()
    await until(lambda: not containers(client, set_name), "the first copy is removed")
    images.remove(image.reference)
    with pytest.raises((ImageUnknown, EngineUnavailable)):
        await rig.launcher.start(rig.order(image))
    await until(lambda: not containers(client, set_name), "nothing is left")
