"""What slots of a real Docker engine are given, how they start and end there, and what the engine says of images."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from docker import APIClient

from scheduler.errors import BadRequest, EngineUnfit, ImageUnknown, ImageUnusable
from scheduler.launchers import docker_images
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from tests.scheduler.launchers.rig import (
    PASSWD,
    Files,
    ImageMaker,
    Rig,
    containers,
    folder_of,
    left_no_volume,
    until,
    volumes,
    writable_mounts,
)

pytestmark = pytest.mark.docker


async def test_a_slot_runs_the_guest_in_the_image(rig: Rig, images: ImageMaker) -> None:
    reference = images.make(
        'ENTRYPOINT ["/bin/algorithm"]', "ENV COLOUR=blue", "USER worker", "WORKDIR /data", "VOLUME /var/x"
    )
    order, probe = await rig.run(reference)
    argv = (await probe.ask("argv")).split("\n")
    assert argv[1:-1] == [
        *("/gc/run/executor.sock", "4096", "/tmp", "/dev/shm", "/home/worker", "/var/x"),
        *("--", "PATH", "HOSTNAME", "HOME", "COLOUR"),
    ]
    env = (await probe.ask("env")).split("\n")
    assert {"COLOUR=blue", f"GENERAL_COMPUTE_SLOT_TOKEN={order.token}", "HOME=/home/worker"} <= set(env)
    assert await probe.ask("id") == "1 1234 2345"
    assert await probe.ask("cwd") == "/data"
    assert await probe.ask("read /data/from-image") == "of the image\n"


async def test_an_image_that_sets_home_keeps_it(rig: Rig, images: ImageMaker) -> None:
    for set_to, home in (("/data", "/data"), ("", "/root"), ("relative", "relative")):
        _, probe = await rig.run(images.make('CMD ["/x"]', f"ENV HOME={set_to}"))
        env = (await probe.ask("env")).split("\n")
        assert [entry for entry in env if entry.startswith("HOME=")] == [f"HOME={home}"]


@pytest.mark.parametrize(
    ("user", "home", "writable"),
    [
        ("0", "/root", True),
        ("worker", "/home/worker", True),
        # Its line in /etc/passwd counts for a number, too.
        ("1234", "/home/worker", True),
        # Nobody can write there with `docker run` either.
        ("1000", "/", False),
        ("system", "/usr/sbin", False),
    ],
)
async def test_home_is_what_the_engine_gives_and_can_be_written_to(
    rig: Rig, images: ImageMaker, user: str, home: str, writable: bool
) -> None:
    passwd = PASSWD + "system:x:5:5::/usr/sbin:/none\n"
    reference = images.make('CMD ["/x"]', f"USER {user}", files={"etc/passwd": passwd.encode()})
    _, probe = await rig.run(reference)
    assert f"HOME={home}" in (await probe.ask("env")).split("\n")
    assert (await probe.ask(f"write {home}/new") == "ok") is writable
    assert (home in await probe.places()) is writable


@pytest.mark.parametrize("target", ["/gc", "../../../../etc", "/tmp"])
async def test_a_volume_by_a_symbolic_link_stays_inside_the_slot(
    rig: Rig, images: ImageMaker, target: str
) -> None:
    """It may spoil its own slot so, not the host: the place is a tmpfs wherever it ends up."""
    _, probe = await rig.run(images.make('CMD ["/x"]', "VOLUME /v", files={"v": target}))
    assert await probe.ask("write /v/new") == "ok"
    writable = writable_mounts(await probe.ask("read /proc/mounts"))
    inside = "/" + target.lstrip("./")
    assert writable.pop(inside) == "tmpfs"
    assert set(writable) <= {"/proc", "/sys/fs/cgroup", "/tmp", "/dev/shm", "/root"}
    assert await probe.ask("unlink /gc/guest") in ("errno EBUSY", "errno EROFS")


async def test_what_resolve_says_of_an_image(rig: Rig, images: ImageMaker) -> None:
    reference = images.make(
        'ENTRYPOINT ["/bin/a", "-x"]',
        'CMD ["one"]',
        "ENV A=1",
        "USER 7:8",
        "WORKDIR /data",
        "VOLUME /v",
        "LABEL k=v",
    )
    image = await rig.images.resolve(reference)
    assert image.reference == reference
    assert image.digest == image.image_id
    assert image.digest.startswith("sha256:")
    assert (image.entrypoint, image.cmd) == (("/bin/a", "-x"), ("one",))
    assert (image.env, image.user, image.workdir) == (("A=1",), "7:8", "/data")
    assert (image.volumes, image.labels) == (("/v",), {"k": "v"})
    assert await rig.images.resolve(image.image_id) == type(image)(
        **{name: getattr(image, name) for name in image.__struct_fields__ if name != "reference"},
        reference=image.image_id,
    )


async def test_an_image_with_nothing_to_run_is_resolved(rig: Rig, images: ImageMaker) -> None:
    image = await rig.images.resolve(images.make())
    assert image.argv(()) == ()
    assert image.argv(("/bin/x",)) == ("/bin/x",)


@pytest.mark.parametrize(
    "reference", ["no-such-image:1", "no-such-host.invalid:5000/acme/ocr:1", "ocr@sha256:" + "0" * 64]
)
async def test_an_unknown_image_is_refused_by_name(rig: Rig, reference: str) -> None:
    with pytest.raises(ImageUnknown, match=reference.split(":")[0]):
        await rig.images.resolve(reference)


async def test_the_beginning_of_an_image_id_names_nothing(rig: Rig, plain_image: str) -> None:
    image = await rig.images.resolve(plain_image)
    with pytest.raises(ImageUnknown):
        await rig.images.resolve(image.image_id.removeprefix("sha256:")[:12])


async def test_a_malformed_reference_names_the_field(rig: Rig) -> None:
    with pytest.raises(BadRequest, match="lower case") as caught:
        await rig.images.resolve("Imgproc:1")
    assert caught.value.field == "image"


async def test_a_tag_that_moves_is_seen(
    rig: Rig, images: ImageMaker, plain_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing remembered is looked up again for its age: only the engine's event makes it.
    monkeypatch.setattr(docker_images, "_FRESH_S", 3600)
    monkeypatch.setattr(docker_images, "_STALE_S", 3600)
    moving = images.make('CMD ["/old"]')
    for entry in ("/new", "/newer"):
        before = await rig.images.resolve(moving)
        images.make(f'CMD ["{entry}"]', tag=moving)
        async with asyncio.timeout(60):
            while (after := await rig.images.resolve(moving)) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert after.cmd == (entry,)
    images.remove(moving)
    async with asyncio.timeout(60):
        while await is_known(rig, moving):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def is_known(rig: Rig, reference: str) -> bool:
    try:
        await rig.images.resolve(reference)
    except ImageUnknown:
        return False
    return True


async def test_a_slot_that_ends_is_reported_once(
    rig: Rig, plain_image: str, client: APIClient, set_name: str
) -> None:
    order, probe = await rig.run(plain_image)
    await probe.end("exit 3")
    await until(lambda: bool(rig.gone), "the end is reported")
    await until(lambda: not containers(client, set_name), "its container is removed")
    await rig.launcher.stop(order.slot_id)
    assert rig.gone == [(order.slot_id, "its container ended with exit code 3")]
    assert await rig.launcher.was_out_of_memory(order.slot_id) is False


@pytest.mark.parametrize(
    ("changes", "files", "why"),
    [
        (["USER nobody-here"], {}, "its USER does not exist"),
        (["USER worker:nogroup-here"], {}, "group of its USER does not exist"),
        (["USER 4294967296"], {}, "its USER is out of range"),
        (["WORKDIR /etc/passwd"], {}, "must be a directory"),
        (["WORKDIR /etc/passwd/x"], {}, "must be a directory"),
        (["WORKDIR /w"], {"w": "/v", "v": "/w"}, "in a circle"),
        (["VOLUME /etc/passwd"], {}, "must be a directory"),
        (["VOLUME /a/b"], {"a": b"a file"}, "must be a directory"),
        (["VOLUME /w"], {"w": "/v", "v": "/w"}, "in a circle"),
        (["VOLUME /v"], {"v": "/"}, "leads nowhere good"),
        (["VOLUME /v"], {"v": "/proc"}, "into /proc"),
        (["VOLUME /v"], {"v": "/proc/sys"}, "into /proc"),
        ([], {"gc": b"a file"}, "must be a directory"),
        ([], {"gc": None, "gc/guest": None}, "must be a directory"),
        ([], {"tmp": b"a file"}, "must be a directory"),
    ],
)
async def test_an_image_that_cannot_start_says_why_and_leaves_nothing(
    rig: Rig,
    images: ImageMaker,
    client: APIClient,
    set_name: str,
    changes: list[str],
    files: Files,
    why: str,
) -> None:
    reference = images.make('CMD ["/x"]', *changes, files=files)
    before = volumes(client, unused=True)
    order = rig.order(await rig.images.resolve(reference))
    with pytest.raises(ImageUnusable, match=why) as caught:
        await rig.launcher.start(order)
    told = str(caught.value)
    assert reference in told
    # Nothing of how the host is laid out.
    assert "merged" not in told
    assert str(folder_of(order.slot_id)) not in told
    assert containers(client, set_name) == []
    await left_no_volume(client, before)


@pytest.mark.parametrize(
    "volume", ["/proc", "/proc/sys", "/gc", "/gc/run", "/dev", "/sys/fs", "/", "/etc", "/usr"]
)
async def test_a_volume_that_would_break_the_slot_is_refused(
    rig: Rig, images: ImageMaker, volume: str
) -> None:
    reference = images.make('CMD ["/x"]', f"VOLUME {volume}")
    with pytest.raises(ImageUnusable, match=f"VOLUME {volume}"):
        await rig.images.resolve(reference)


async def test_an_image_of_another_machine_is_refused(rig: Rig, images: ImageMaker) -> None:
    reference = images.load({"Cmd": ["/x"]}, architecture="s390x")
    with pytest.raises(ImageUnusable, match="built for s390x"):
        await rig.images.resolve(reference)


async def test_an_image_without_any_configuration_is_resolved(rig: Rig, images: ImageMaker) -> None:
    image = await rig.images.resolve(images.load({}))
    assert image.argv(()) == ()
    _, probe = await rig.run(image.reference)
    assert await probe.ask("id") == "1 0 0"


async def test_a_runtime_that_the_engine_lacks_is_named_at_the_start(docker_settings: DockerSettings) -> None:
    settings = msgspec.structs.replace(docker_settings, runtime="no-such-runtime")
    launcher = DockerLauncher(settings, folder_of, lambda slot_id, reason: None)
    said = r"no runtime 'no-such-runtime'; it has .*runc.* change the set's `runtime`"
    with pytest.raises(EngineUnfit, match=said):
        await launcher.open()
    # That is what /readyz answers while the set tries again.
    with pytest.raises(EngineUnfit, match=said):
        await launcher.check()
    await launcher.close()


async def test_a_runtime_of_the_engine_runs_slots(docker_settings: DockerSettings, plain_image: str) -> None:
    launcher = DockerLauncher(
        msgspec.structs.replace(docker_settings, runtime="runc"), folder_of, lambda slot_id, reason: None
    )
    await launcher.open()
    rig = Rig(launcher, [])
    _, probe = await rig.run(plain_image)
    assert await probe.ask("id") == "1 0 0"
    await launcher.close()
    rig.close()
