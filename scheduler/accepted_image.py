"""Finds the image that a task was accepted with, also when its tag has moved on meanwhile."""

from __future__ import annotations

from scheduler.errors import BadRequest, ImageUnknown
from scheduler.image import Image
from scheduler.images.contract import ImageSource
from scheduler.images.reference import parse_reference
from scheduler.task import TaskSpec


async def resolve(source: ImageSource, spec: TaskSpec) -> Image:
    """The image of this digest. Raises `ImageUnknown` if it is gone, and as `ImageSource.resolve`."""
    # An image that was only built locally is known by its id, one of a registry by repository and digest.
    references = [spec.image_digest]
    try:
        repository = parse_reference(spec.image).repository
        if repository:
            references.append(f"{repository}@{spec.image_digest}")
    except BadRequest:
        pass
    gone = ImageUnknown()
    for reference in references:
        try:
            return await source.resolve(reference)
        except (ImageUnknown, BadRequest) as unknown:
            gone = ImageUnknown(f"image {spec.image} ({spec.image_digest}) is gone: {unknown}")
    raise gone
