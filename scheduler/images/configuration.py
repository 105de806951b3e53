"""Turns the configuration of an OCI image into an `Image`. Pure. It comes from strangers, so the type of every field is
checked."""

from __future__ import annotations

from typing import Any

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.images.places import writable_places
from scheduler.images.reference import Reference


def image_of(reference: Reference, config: object, *, digest: str, image_id: str) -> Image:
    """The image that `config`, the member of that name, describes. Raises `ImageUnusable` where no slot can run it."""
    if not isinstance(config, dict):
        raise _broken(reference, "Config")
    # To the engine, an ENTRYPOINT of one empty string means that there is none.
    entrypoint = _strings(reference, config, "Entrypoint")
    image = Image(
        reference=reference.text,
        digest=digest,
        image_id=image_id,
        entrypoint=() if entrypoint == ("",) else entrypoint,
        cmd=_strings(reference, config, "Cmd"),
        env=_strings(reference, config, "Env"),
        user=_string(reference, config, "User"),
        workdir=_string(reference, config, "WorkingDir"),
        volumes=tuple(sorted(_mapping(reference, config, "Volumes"))),
        labels={name: str(value) for name, value in _mapping(reference, config, "Labels").items()},
    )
    writable_places(image)
    return image


def check_platform(reference: Reference, system: str, architecture: str, machine: str) -> None:
    """Raise `ImageUnusable` for an image of another operating system, or of another architecture than `machine`.

    Architectures are in Go's words (amd64, arm64); "" fits all.
    """
    if system != "linux":
        raise ImageUnusable(f"{reference.text} is an image for {system}; slots run linux")
    if architecture and machine and architecture != machine:
        raise ImageUnusable(
            f"{reference.text} is built for {architecture}, this machine is {machine}; "
            f"build it with --platform linux/{machine}"
        )


def _strings(reference: Reference, config: dict[str, Any], field: str) -> tuple[str, ...]:
    value = config.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _broken(reference, field)
    return tuple(value)


def _string(reference: Reference, config: dict[str, Any], field: str) -> str:
    value = config.get(field) or ""
    if not isinstance(value, str):
        raise _broken(reference, field)
    return value


def _mapping(reference: Reference, config: dict[str, Any], field: str) -> dict[str, Any]:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise _broken(reference, field)
    return value


def _broken(reference: Reference, field: str) -> ImageUnusable:
    return ImageUnusable(f"{reference.text}: the image's configuration is broken at {field}; build it again")
