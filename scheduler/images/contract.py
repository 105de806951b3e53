"""The contract of a source of images: find the image that a reference names, and the layout of its slots."""

from __future__ import annotations

from typing import Protocol

from scheduler.image import Image
from scheduler.images.places import Layout


class ImageSource(Protocol):
    """Called from the event loop."""

    async def resolve(self, reference: str) -> Image:
        """The image that `reference` names now.

        An image without ENTRYPOINT and CMD is given as it is: it can be run with arguments. Raises `BadRequest` (field
        `image`) for what is not a reference, `ImageUnknown` (of which `RegistryNotAllowed` and `ImageDenied` are
        kinds), `ImageUnusable`, `ImagePulling`, and `Unavailable` where the source does not answer.
        """


class LayoutSource(Protocol):
    """Called from the event loop."""

    async def layout(self, image: Image) -> Layout:
        """The layout of the image's slots. An image that was resolved before has it, or is unusable.

        Raises `ImageUnknown`, `ImageUnusable`, and `Unavailable` where the source does not answer.
        """
