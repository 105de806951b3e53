"""Looks into layers that come slowly, wrongly or not at all. What they find is in test_image_sources.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from scheduler.errors import ImageUnknown, ImageUnusable, Unavailable
from scheduler.image import Image
from scheduler.registry import layouts as layouts_module
from scheduler.registry.images import RegistryImages
from scheduler.registry.layouts import RegistryLayouts, usual_paths
from tests.scheduler.launchers.rig import tar_of
from tests.scheduler.registries import Answer, Asked, ScriptedRegistry, built
from tests.scheduler.registry.conftest import Open

PASSWD = b"root:x:0:0::/root:/none\n"
IMAGE = built(
    {"User": "root"}, tar_of({"etc": None, "etc/passwd": PASSWD, "root": None, "root/a": b"weights"})
)


@pytest.fixture
async def images(opened: Open) -> RegistryImages:
    return await opened()


@pytest.fixture
async def layouts(images: RegistryImages) -> AsyncIterator[RegistryLayouts]:
    layouts = RegistryLayouts(images, volume_bytes=1 << 20, home_bytes=1 << 20)
    yield layouts
    await layouts.close()


def is_layer(asked: Asked) -> bool:
    return asked.path.endswith(list(IMAGE.blobs)[1])


async def held(registry: ScriptedRegistry, images: RegistryImages) -> Image:
    registry.hold("x", "1", IMAGE)
    return await images.resolve(f"{registry.host}/x:1")


async def test_all_starts_of_an_image_share_one_look(
    registry: ScriptedRegistry, images: RegistryImages, layouts: RegistryLayouts
) -> None:
    image = await held(registry, images)
    found = await asyncio.gather(*(layouts.layout(image) for _ in range(20)))
    assert all(layout == found[0] for layout in found)
    assert b"weights" in found[0].content
    assert sum(map(is_layer, registry.asked)) == 1
    await layouts.layout(image)
    assert sum(map(is_layer, registry.asked)) == 1


@pytest.mark.parametrize("step", ["read_layer", "layout_or_fault"])
async def test_the_loop_goes_on_while_an_image_is_looked_into(
    registry: ScriptedRegistry,
    images: RegistryImages,
    layouts: RegistryLayouts,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """Links of executors break if the loop is away for as long as an image with many files takes."""
    loop, in_earnest = asyncio.get_running_loop(), getattr(layouts_module, step)
    went_on: list[bool] = []

    def when_the_loop_went_on(*arguments: object, **named: object) -> object:
        turn = threading.Event()
        loop.call_soon_threadsafe(turn.set)
        went_on.append(turn.wait(30))
        return in_earnest(*arguments, **named)

    monkeypatch.setattr(layouts_module, step, when_the_loop_went_on)
    image = await held(registry, images)
    assert b"weights" in (await layouts.layout(image)).content
    assert went_on == [True]


async def test_a_layer_with_other_content_is_not_taken(
    registry: ScriptedRegistry, images: RegistryImages, layouts: RegistryLayouts
) -> None:
    image = await held(registry, images)
    lie = built({}, tar_of({"root": None, "root/b": b"other"}))
    registry.script = lambda asked: Answer(content=list(lie.blobs.values())[1]) if is_layer(asked) else None
    with pytest.raises(Unavailable, match="is not the content of its digest"):
        await layouts.layout(image)
    registry.script = lambda asked: None
    assert b"weights" in (await layouts.layout(image)).content


async def test_a_layer_that_is_cut_off_is_the_registry_s_fault(
    registry: ScriptedRegistry, images: RegistryImages, layouts: RegistryLayouts
) -> None:
    image = await held(registry, images)
    registry.script = lambda asked: (
        Answer(content=b"\x1f\x8b", announced_bytes=1000) if is_layer(asked) else None
    )
    with pytest.raises(Unavailable, match="cannot be used now"):
        await layouts.layout(image)


async def test_a_broken_layer_is_the_image_s_fault(
    registry: ScriptedRegistry, images: RegistryImages, layouts: RegistryLayouts
) -> None:
    registry.hold("x", "1", built({}, b"no archive at all"))
    image = await images.resolve(f"{registry.host}/x:1")
    for _ in range(2):
        with pytest.raises(ImageUnusable, match="a layer is broken"):
            await layouts.layout(image)


@pytest.fixture
def stalled(registry: ScriptedRegistry) -> Callable[[], threading.Event]:
    """Has the registry stall at layers, until the event is set; `asked` of the event tells that it does."""

    def stall() -> threading.Event:
        free = threading.Event()

        def script(asked: Asked) -> Answer | None:
            if is_layer(asked):
                free.wait(60)
            return None

        registry.script = script
        return free

    return stall


async def test_a_layer_that_does_not_come_is_given_up(
    registry: ScriptedRegistry,
    images: RegistryImages,
    layouts: RegistryLayouts,
    stalled: Callable[[], threading.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layouts_module, "LOOK_S", 0.2)
    image = await held(registry, images)
    free = stalled()
    with pytest.raises(Unavailable, match=r"did not come within 0\.2 s"):
        await layouts.layout(image)
    free.set()


async def test_closing_does_not_wait_for_a_layer(
    registry: ScriptedRegistry,
    images: RegistryImages,
    layouts: RegistryLayouts,
    stalled: Callable[[], threading.Event],
) -> None:
    image = await held(registry, images)
    free = stalled()
    look = asyncio.create_task(layouts.layout(image))
    async with asyncio.timeout(60):
        while not any(map(is_layer, registry.asked)):  # noqa: ASYNC110 (the registry's thread acts)
            await asyncio.sleep(0.01)
        await layouts.close()
        with pytest.raises(asyncio.CancelledError):
            await look
    assert not free.is_set()
    free.set()


async def test_an_image_that_was_forgotten_is_asked_for_again(layouts: RegistryLayouts) -> None:
    with pytest.raises(ImageUnknown, match="send the task again"):
        await layouts.layout(Image("x:1", "sha256:1", "sha256:1", location="gone/x@sha256:1"))


@pytest.mark.parametrize(
    ("fields", "home"),
    [
        ({}, "/root"),
        ({"user": "0:7"}, "/root"),
        ({"user": "app"}, "/home/app"),
        ({"user": "app:app", "env": ("HOME=/srv",)}, "/srv"),
    ],
)
def test_one_pass_is_enough_for_usual_homes(fields: dict[str, object], home: str) -> None:
    image = Image("x:1", "d", "i", **fields)  # type: ignore[arg-type]
    assert {home, "/etc/passwd", "/etc/group"} <= usual_paths(image)
