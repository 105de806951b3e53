"""Manifests and indexes that strangers pushed: registries store almost anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scheduler.errors import ImageUnusable
from scheduler.images.reference import parse_reference
from scheduler.registry.documents import MAX_LAYERS, Layer, Manifest, parse_config, parse_manifest

REFERENCE = parse_reference("registry.example/cat:1")
D1, D2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64
LAYER: dict[str, Any] = {"mediaType": "tar", "digest": D2, "size": -5}


def parsed(document: object) -> Manifest | str:
    return parse_manifest(REFERENCE, json.dumps(document).encode(), "amd64")


def entry(architecture: object, system: object = "linux", digest: str = D1) -> dict[str, Any]:
    return {"digest": digest, "platform": {"os": system, "architecture": architecture}}


def test_a_manifest_names_configuration_and_layers() -> None:
    assert parsed({"config": {"digest": D1}, "layers": [LAYER]}) == Manifest(D1, (Layer(D2, "tar"),))


def test_an_index_leads_to_the_image_for_these_nodes() -> None:
    entries = [
        entry("unknown", "unknown"),
        entry("arm64"),
        entry("amd64", "windows"),
        entry("amd64", digest=D2),
    ]
    assert parsed({"manifests": entries}) == D2


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"manifests": []}, "built for no platform, and slots run linux/amd64"),
        ({"manifests": [entry("arm64"), entry("s390x")]}, "built for linux/arm64, linux/s390x"),
        ({"manifests": [{"digest": D1}]}, "no platform"),
        ({"manifests": [entry("amd64", digest="md5:1")]}, "a SHA-256 is expected"),
        ({"manifests": [entry("amd64")] * 1025}, "1025 entries"),
        ({"manifests": "x"}, "broken at manifests"),
        ({"manifests": [1]}, "broken at manifests"),
        ({"manifests": [], "config": {"digest": D1}, "layers": []}, "also an index"),
        ({"schemaVersion": 1, "fsLayers": []}, "old schema 1"),
        ({}, "neither an image's nor an index"),
        ([], "not a JSON object"),
        ({"config": {"digest": D1}, "layers": 1}, "broken at layers"),
        ({"config": {"digest": D1}}, "broken at layers"),
        ({"config": 1, "layers": []}, "broken at config"),
        ({"config": {"digest": "../x"}, "layers": []}, "broken at config.digest"),
        ({"config": {"digest": D1}, "layers": [{"digest": D2}]}, "broken at layers.mediaType"),
        ({"config": {"digest": D1}, "layers": [LAYER] * (MAX_LAYERS + 1)}, f"{MAX_LAYERS + 1} layers"),
        ({"config": {"digest": D1}, "layers": [{**LAYER, "urls": ["http://169.254.169.254/"]}]}, "outside"),
    ],
)
def test_anything_else_is_unusable_and_says_why(document: object, why: str) -> None:
    with pytest.raises(ImageUnusable, match=why):
        parsed(document)


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[" * 100_000, b'"x"'])
def test_what_is_not_json_is_unusable(content: bytes) -> None:
    with pytest.raises(ImageUnusable, match="JSON"):
        parse_manifest(REFERENCE, content, "amd64")
    with pytest.raises(ImageUnusable, match="its configuration"):
        parse_config(REFERENCE, content)
