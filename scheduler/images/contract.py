"""The contract of a source of images: find the image that a reference names."""

from __future__ import annotations

from typing import Protocol

from scheduler.image import Image


class ImageSource(Protocol):
    """Called from the event loop."""

    async def resolve(self, reference: str) -> Image:
        """The image that `reference` names now.

        An image without ENTRYPOINT and CMD is given as it is: it can be run with arguments. Raises `BadRequest` (field
        `image`) for what is not a reference, `ImageUnknown`, `ImageUnusable`, `ImagePulling`, and `Unavailable` where
        the source does not answer.
        """
