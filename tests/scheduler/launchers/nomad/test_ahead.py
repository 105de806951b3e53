"""Images that a set wants ahead: found by its own sources, and told to the registrar as it would run them."""

from __future__ import annotations

import asyncio

import msgspec

from scheduler.errors import ImageUnknown
from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.launchers.nomad.ahead import ImagesAhead
from scheduler.launchers.nomad.orders import Ahead, AheadImage
from tests.scheduler.conftest import until
from tests.scheduler.fakes import CAT

DIGEST = "sha256:" + "2" * 64


class Sources:
    """Images by name, and what is writable in each."""

    def __init__(self, **images: Image) -> None:
        self.images = images

    async def resolve(self, reference: str) -> Image:
        if reference not in self.images:
            raise ImageUnknown(f"{reference} is not there")
        return self.images[reference]

    async def layout(self, image: Image) -> Layout:
        return Layout(("/tmp", "/data"))


async def told(sources: Sources, *references: str) -> list[Ahead]:
    """What the registrar is told, twice."""
    sent: list[Ahead] = []
    ahead = ImagesAhead(references, sources, sources, 0.01)
    keeping = asyncio.create_task(ahead.keep(sent.append))
    await until(lambda: len(sent) >= 2)
    keeping.cancel()
    return sent


async def test_an_image_is_named_as_slots_will_run_it_with_its_places() -> None:
    located = msgspec.structs.replace(CAT, location=f"registry.example/acme/cat@{DIGEST}")
    first, second, *_ = await told(Sources(cat=located), "cat")
    assert first == second == Ahead((AheadImage("cat", located.location, ("/tmp", "/data")),))


async def test_images_that_no_node_can_pull_are_left_out() -> None:
    local = msgspec.structs.replace(CAT, digest=CAT.image_id, location="")
    first, *_ = await told(Sources(local=local), "local", "unknown")
    assert first == Ahead(())


async def test_a_set_that_wants_none_says_so() -> None:
    first, *_ = await told(Sources())
    assert first == Ahead(())
