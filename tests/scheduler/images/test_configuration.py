"""Configurations of images, as strangers wrote them, become images or a reason."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.errors import ImageUnusable
from scheduler.images.configuration import check_platform, image_of
from scheduler.images.reference import parse_reference

REFERENCE = parse_reference("registry.example/ocr:1")
DIGEST = "sha256:" + "1" * 64


def image(config: object) -> Any:
    return image_of(REFERENCE, config, digest=DIGEST, image_id="sha256:" + "2" * 64)


def test_all_that_a_configuration_says() -> None:
    found = image(
        {
            "Entrypoint": ["/bin/a", "-x"],
            "Cmd": ["one"],
            "Env": ["A=1"],
            "User": "7:8",
            "WorkingDir": "/data",
            "Volumes": {"/w": {}, "/v": {}},
            "Labels": {"k": "v", "n": 1},
            "ExposedPorts": {"80/tcp": {}},
        }
    )
    assert (found.reference, found.digest) == ("registry.example/ocr:1", DIGEST)
    assert (found.entrypoint, found.cmd, found.env) == (("/bin/a", "-x"), ("one",), ("A=1",))
    assert (found.user, found.workdir, found.volumes) == ("7:8", "/data", ("/v", "/w"))
    assert found.labels == {"k": "v", "n": "1"}


def test_an_empty_configuration_is_an_image_without_anything_to_run() -> None:
    found = image({"Entrypoint": None, "Env": None, "Labels": None})
    assert (found.argv(()), found.env, found.labels) == ((), (), {})


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ([], "Config"),
        ("x", "Config"),
        ({"Entrypoint": "/bin/a"}, "Entrypoint"),
        ({"Cmd": [1]}, "Cmd"),
        ({"Env": {"A": "1"}}, "Env"),
        ({"User": 7}, "User"),
        ({"WorkingDir": ["/"]}, "WorkingDir"),
        ({"Volumes": ["/v"]}, "Volumes"),
        ({"Labels": ["k=v"]}, "Labels"),
    ],
)
def test_a_broken_configuration_names_its_field(config: object, field: str) -> None:
    with pytest.raises(ImageUnusable, match=f"broken at {field}; build it again"):
        image(config)


def test_a_volume_that_no_slot_can_give_makes_the_image_unusable() -> None:
    with pytest.raises(ImageUnusable, match="VOLUME /proc"):
        image({"Volumes": {"/proc": {}}})


def test_images_of_other_machines_are_refused() -> None:
    check_platform(REFERENCE, "linux", "amd64", "amd64")
    check_platform(REFERENCE, "linux", "", "amd64")
    check_platform(REFERENCE, "linux", "arm64", "")
    with pytest.raises(ImageUnusable, match="is an image for windows"):
        check_platform(REFERENCE, "windows", "amd64", "amd64")
    with pytest.raises(
        ImageUnusable, match=r"built for arm64, this machine is amd64; .*--platform linux/amd64"
    ):
        check_platform(REFERENCE, "linux", "arm64", "amd64")
