"""Images resolved from their registries (`scheduler.images.contract.ImageSource`), without a container engine."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from scheduler.errors import ImageUnknown, ImageUnusable, SchedulerError, Unavailable
from scheduler.image import Image
from scheduler.images.configuration import check_platform, image_of
from scheduler.images.reference import Reference, parse_reference
from scheduler.registry.allowed import AllowList, Registry
from scheduler.registry.client import RegistryClient
from scheduler.registry.documents import (
    MAX_CONFIG_BYTES,
    Layer,
    Manifest,
    is_digest,
    parse_config,
    parse_manifest,
)

log = structlog.get_logger()

FRESH_S: Final = 1.0
"""A remembered answer of this age is used as it is, in seconds."""
STALE_S: Final = 5.0
"""Longest time, in seconds, that a tag's move may go unnoticed. An answer older than `FRESH_S` is used, and looked up
again in the background; one older than this is looked up before it is used."""
KEPT_S: Final = 3600.0
"""Longest time, in seconds, that remembered images are used while their registry does not answer."""
REFUSAL_KEPT_S: Final = 1.0
"""Time for which "no such image" is remembered, in seconds, so that wrong names cost the registry little."""
MAX_REMEMBERED: Final = 1024
MAX_IMAGE_BYTES: Final = 256 << 10
"""Limit of what is remembered of one image: its ENTRYPOINT, CMD, ENV, LABELs and VOLUMEs."""
MAX_LOOKUPS: Final = 64


class Source(msgspec.Struct, frozen=True):
    """Where an image's layers are."""

    client: RegistryClient
    repository: str
    layers: tuple[Layer, ...]


class _Seen:
    """The last answer about a reference: when it was asked for, and the image."""

    __slots__ = ("asked_at", "image")

    def __init__(self, image: Image, asked_at: float) -> None:
        self.image = image
        self.asked_at = asked_at


class RegistryImages:
    """Resolves references at the registries of an allow list. All methods belong to one event loop.

    `architecture` is that of the nodes, in Go's words (amd64, arm64).
    """

    def __init__(
        self, allowed: AllowList, architecture: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._allowed = allowed
        self._architecture = architecture
        self._clock = clock
        self._clients = {registry.name: RegistryClient(registry) for registry in allowed}
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._refusals: OrderedDict[str, tuple[float, ImageUnknown | ImageUnusable]] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[Image]] = {}
        self._images: OrderedDict[str, tuple[Image, Source]] = OrderedDict()
        """By location: an image never changes there, so it is read once."""

    async def close(self) -> None:
        lookups = list(self._lookups.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)
        for client in self._clients.values():
            await client.close()

    async def resolve(self, text: str) -> Image:
        """The image that a reference names now, by at most `STALE_S` ago.

        Raises `BadRequest`, `ImageUnknown`, `RegistryNotAllowed`, `ImageDenied`, `ImageUnusable`, `Unavailable`.
        """
        now = self._clock()
        seen = self._seen.get(text)
        if seen is not None and now - seen.asked_at < STALE_S:
            if now - seen.asked_at > FRESH_S and len(self._lookups) < MAX_LOOKUPS:
                self._look_up(parse_reference(text))
            return seen.image
        reference = parse_reference(text)
        refused_at, refusal = self._refusals.get(text, (0.0, None))
        if refusal is not None and now - refused_at < REFUSAL_KEPT_S:
            raise refusal
        try:
            return await asyncio.shield(self._look_up(reference))
        except Unavailable as error:
            if seen is None or now - seen.asked_at > KEPT_S:
                raise
            log.warning("registry away; using the image as last seen", image=text, reason=str(error))
            return seen.image

    def source(self, image: Image) -> Source | None:
        """Where the layers of an image that was resolved here are; None if it is no longer remembered."""
        found = self._images.get(image.location)
        return found[1] if found is not None else None

    def _look_up(self, reference: Reference) -> asyncio.Task[Image]:
        lookup = self._lookups.get(reference.text)
        if lookup is None:
            registry = self._allowed.registry(reference)
            if reference.image_id:
                raise ImageUnknown(
                    f"{reference.text} is an engine's image id; name the image as its registry does"
                )
            if len(self._lookups) >= MAX_LOOKUPS:
                raise Unavailable(f"{len(self._lookups)} images are being looked up already; try again")
            lookup = asyncio.create_task(self._ask(reference, registry))
            self._lookups[reference.text] = lookup
            lookup.add_done_callback(lambda done: self._looked_up(reference.text, done))
        return lookup

    def _looked_up(self, text: str, lookup: asyncio.Task[Image]) -> None:
        del self._lookups[text]
        if lookup.cancelled():
            return
        error = lookup.exception()
        if isinstance(error, ImageUnknown | ImageUnusable):
            self._seen.pop(text, None)
            self._refusals[text] = self._clock(), error
            _bound(self._refusals)
        elif error is not None and not isinstance(error, SchedulerError):
            log.error("image lookup failed", image=text, exc_info=error)

    async def _ask(self, reference: Reference, registry: Registry) -> Image:
        asked_at = self._clock()
        client = self._clients[registry.name]
        repository = registry.repository(reference)
        digest = reference.digest
        if digest and not is_digest(digest):
            raise ImageUnknown(f"{reference.text}: only digests of SHA-256 are known here")
        digest = digest or await client.digest(repository, reference.tag)
        found = self._images.get(_location(registry, repository, digest)) if digest else None
        if found is None:
            found = await self._read(reference, client, repository, digest or reference.tag)
        image = msgspec.structs.replace(found[0], reference=reference.text)
        self._seen[reference.text] = _Seen(image, asked_at)
        self._seen.move_to_end(reference.text)
        _bound(self._seen)
        return image

    async def _read(
        self, reference: Reference, client: RegistryClient, repository: str, tag_or_digest: str
    ) -> tuple[Image, Source]:
        digest, content = await client.manifest(repository, tag_or_digest)
        manifest = parse_manifest(reference, content, self._architecture)
        if isinstance(manifest, str):
            _, content = await client.manifest(repository, manifest)
            manifest = parse_manifest(reference, content, self._architecture)
        if not isinstance(manifest, Manifest):
            raise ImageUnusable(
                f"{reference.text} cannot be run: its index lies within an index; push it again"
            )
        document = parse_config(reference, await client.blob(repository, manifest.config, MAX_CONFIG_BYTES))
        system, architecture = (str(document.get(field) or "") for field in ("os", "architecture"))
        check_platform(reference, system or "linux", architecture, self._architecture)
        image = image_of(reference, document.get("config") or {}, digest=digest, image_id=manifest.config)
        if len(msgspec.json.encode(image)) > MAX_IMAGE_BYTES:
            raise ImageUnusable(
                f"{reference.text} cannot be run: its ENV, LABELs and commands have more than "
                f"{MAX_IMAGE_BYTES >> 10} KiB; keep such data in files"
            )
        location = _location(client.registry, repository, digest)
        found = msgspec.structs.replace(image, location=location), Source(client, repository, manifest.layers)
        self._images[location] = found
        _bound(self._images)
        return found


def _location(registry: Registry, repository: str, digest: str) -> str:
    return f"{registry.name}/{repository}@{digest}"


def _bound(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > MAX_REMEMBERED:
        remembered.popitem(last=False)
