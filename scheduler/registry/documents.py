"""Manifests, indexes and configurations of the OCI image format, as strangers pushed them. Pure.

Their sizes are claims and are not used. Types are checked here; digests where the bytes arrive (`digest_of`).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec

from scheduler.errors import ImageUnusable
from scheduler.images.reference import Reference

ACCEPT: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
"""The types that are accepted. All four must be named, because a registry hides, or converts, other types."""

MAX_MANIFEST_BYTES: Final = 4 << 20
"""Limit of a manifest or index, as registries have it."""
MAX_CONFIG_BYTES: Final = 1 << 20
"""Limit of an image's configuration, its history included."""
MAX_LAYERS: Final = 256
"""Limit of an image's layers; container engines take some 128."""
MAX_INDEX_ENTRIES: Final = 1024

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Layer(msgspec.Struct, frozen=True):
    """A layer: a tar archive. `media_type` says how it is compressed."""

    digest: str
    media_type: str


class Manifest(msgspec.Struct, frozen=True):
    """One image: the digest of its configuration, and its layers, the lowest first."""

    config: str
    layers: tuple[Layer, ...]


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def is_digest(text: str) -> bool:
    """Return True for a digest that can be verified here: SHA-256."""
    return _DIGEST.fullmatch(text) is not None


def parse_manifest(reference: Reference, content: bytes, architecture: str) -> Manifest | str:
    """A manifest; or, of an index, the digest of the manifest for linux and `architecture` (amd64, arm64).

    Raises `ImageUnusable`.
    """
    document = _object(reference, content, "manifest")
    is_index, is_image = "manifests" in document, "config" in document or "layers" in document
    if is_index and is_image:
        # Two readers could take it for two different images (CVE-2021-41190).
        raise _unusable(reference, "its manifest is also an index; push it again")
    if is_index:
        return _choose(reference, document, architecture)
    if not is_image:
        if document.get("schemaVersion") == 1:
            raise _unusable(reference, "its manifest has the old schema 1; push it again with a current tool")
        raise _unusable(reference, "its manifest is neither an image's nor an index; push it again")
    return _manifest(reference, document)


def parse_config(reference: Reference, content: bytes) -> dict[str, Any]:
    """The image's configuration, an object. Raises `ImageUnusable`."""
    return _object(reference, content, "configuration")


def _choose(reference: Reference, index: dict[str, Any], architecture: str) -> str:
    entries = index["manifests"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _unusable(reference, "its index is broken at manifests; push it again")
    if len(entries) > MAX_INDEX_ENTRIES:
        raise _unusable(
            reference, f"its index has {len(entries)} entries; at most {MAX_INDEX_ENTRIES} are read"
        )
    offered = []
    for entry in entries:
        platform = entry.get("platform")
        if not isinstance(platform, dict):
            continue
        system, machine = platform.get("os"), platform.get("architecture")
        if (system, machine) == ("linux", architecture):
            return _digest(reference, entry, "manifests")
        # BuildKit's attestations say unknown/unknown.
        if isinstance(system, str) and isinstance(machine, str) and machine != "unknown":
            offered.append(f"{system}/{machine}"[:40])
    raise _unusable(
        reference,
        f"it is built for {', '.join(sorted(set(offered))[:10]) or 'no platform'}, and slots run linux/{architecture}; "
        f"build it with --platform linux/{architecture}",
    )


def _manifest(reference: Reference, document: dict[str, Any]) -> Manifest:
    config, layers = document.get("config"), document.get("layers")
    if not isinstance(config, dict):
        raise _unusable(reference, "its manifest is broken at config; push it again")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise _unusable(reference, "its manifest is broken at layers; push it again")
    if len(layers) > MAX_LAYERS:
        raise _unusable(reference, f"it has {len(layers)} layers; at most {MAX_LAYERS} are allowed")
    found = []
    for layer in layers:
        if layer.get("urls"):
            # A puller would fetch them from there, with its own network.
            raise _unusable(reference, "a layer lies outside of its registry (urls); push the layer itself")
        media_type = layer.get("mediaType")
        if not isinstance(media_type, str):
            raise _unusable(reference, "its manifest is broken at layers.mediaType; push it again")
        found.append(Layer(_digest(reference, layer, "layers"), media_type))
    return Manifest(_digest(reference, config, "config"), tuple(found))


def _digest(reference: Reference, descriptor: dict[str, Any], field: str) -> str:
    digest = descriptor.get("digest")
    if not isinstance(digest, str) or not is_digest(digest):
        raise _unusable(
            reference, f"its manifest is broken at {field}.digest: a SHA-256 is expected; push it again"
        )
    return digest


def _object(reference: Reference, content: bytes, what: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _unusable(reference, f"its {what} is not JSON; push it again") from error
    if not isinstance(document, dict):
        raise _unusable(reference, f"its {what} is not a JSON object; push it again")
    return document


def _unusable(reference: Reference, why: str) -> ImageUnusable:
    return ImageUnusable(f"{reference.text} cannot be run: {why}")
