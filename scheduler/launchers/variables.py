"""Variables of an image's environment that a launcher has to set or to name, because an engine would not."""

from __future__ import annotations

from scheduler.image import Image


def names(image: Image) -> list[str]:
    """The name of each variable that the image sets, in its order."""
    return [entry.partition("=")[0] for entry in image.env]


def said_twice(image: Image) -> dict[str, str]:
    """The last of each variable that the image sets twice. Given any variable, an engine would take the first."""
    found = names(image)
    last = dict(zip(found, (entry.partition("=")[2] for entry in image.env), strict=True))
    return {name: value for name, value in last.items() if found.count(name) > 1}
