"""Orders and settings become create bodies; inspections become images. No engine is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import ImageUnusable
from scheduler.image import LABEL_WRITABLE, Image
from scheduler.launchers.contract import PoolKey, SlotOrder
from scheduler.launchers.docker_config import (
    MAX_WRITABLE_PLACES,
    DockerSettings,
    EngineFacts,
    create_body,
    has_places_of_its_own,
    image_from,
    look_body,
    writable_places,
)
from scheduler.launchers.reference import parse_reference
from scheduler.launchers.user import Owner
from scheduler.task import Isolation, Resources

ID = "sha256:" + "1" * 64
SETTINGS = DockerSettings(
    set_name="a", guest_binary=Path("/opt/guest"), tmp_mib=10, shm_mib=3, writable_mib=7
)


def image(**fields: Any) -> Image:
    return Image(reference="ocr:1", digest=ID, image_id=ID, **fields)


def body(of: Image, settings: DockerSettings = SETTINGS, **more: Any) -> dict[str, Any]:
    pool = PoolKey("acme", of.digest, Resources(cpu_percent=150, memory_mib=256), Isolation.SHARED)
    return create_body(
        SlotOrder("s1", pool, of, Path("/run/s1"), "t" * 64),
        settings,
        more.pop("facts", EngineFacts()),
        **more,
    )


def test_the_image_own_command_never_reaches_the_engine() -> None:
    made = body(image(entrypoint=("/secret",), cmd=("x",)))
    assert made["Entrypoint"] == ["/gc/guest"]
    assert made["Cmd"] == ["/gc/run/executor.sock", "/tmp", "/dev/shm"]
    assert "/secret" not in str(made)
    assert not {"User", "WorkingDir"} & set(made)


def test_sizes_of_places() -> None:
    tmpfs = body(image(volumes=("/v",)))["HostConfig"]["Tmpfs"]
    assert {place: options.split("size=")[1] for place, options in tmpfs.items() if place != "/dev"} == {
        "/tmp": "10m,nr_inodes=65536",
        "/dev/shm": "3m,nr_inodes=65536",
        "/v": "7m,nr_inodes=65536",
    }


@pytest.mark.parametrize("owner", [Owner(7, 8), Owner(7, 0), Owner(0, 8)])
def test_places_of_the_image_are_given_to_its_user(owner: Owner) -> None:
    of = image(volumes=("/v", "/tmp", "/tmp/x"), labels={LABEL_WRITABLE: "/l,/dev/shm"})
    tmpfs = body(of, owner=owner)["HostConfig"]["Tmpfs"]
    belongs_to = f",uid={owner.uid},gid={owner.gid},"
    assert {place for place, options in tmpfs.items() if belongs_to in options} == {"/v", "/tmp/x", "/l"}
    assert {place for place, options in tmpfs.items() if "id=" not in options.replace("nosuid", "")} == {
        "/tmp",
        "/dev/shm",
        "/dev",
    }


def test_places_are_roots_where_nobody_else_is_named() -> None:
    of = image(volumes=("/v",))
    assert body(of, owner=Owner()) == body(of, owner=None) == body(of)
    assert "uid=" not in str(body(of))


def test_which_images_have_places_of_their_own() -> None:
    assert not has_places_of_its_own(image())
    assert not has_places_of_its_own(image(volumes=("/tmp/",), labels={LABEL_WRITABLE: "/dev/shm"}))
    assert has_places_of_its_own(image(volumes=("/tmp/x",)))
    assert has_places_of_its_own(image(labels={LABEL_WRITABLE: "/x"}))
    with pytest.raises(ImageUnusable, match="VOLUME /etc"):
        has_places_of_its_own(image(volumes=("/etc",)))


def test_a_look_into_an_image_makes_no_volume_and_bears_the_labels_of_its_set() -> None:
    made = look_body(image(volumes=("/v/",), workdir="/etc/passwd"), SETTINGS, "look-1")
    assert set(made["HostConfig"]["Tmpfs"]) == {"/v", "/tmp", "/dev/shm"}
    assert made["WorkingDir"] == "/"
    assert made["Labels"]["org.general-compute.set"] == "a"
    assert made["Labels"]["org.general-compute.slot"] == "look-1"


def test_swappiness_is_only_for_the_cgroups_that_know_it() -> None:
    assert "MemorySwappiness" not in body(image())["HostConfig"]
    assert body(image(), facts=EngineFacts(cgroup_version=1))["HostConfig"]["MemorySwappiness"] == 0


def test_a_seccomp_profile_is_handed_over_whole() -> None:
    assert body(image())["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert body(image(), seccomp="{}")["HostConfig"]["SecurityOpt"][1] == "seccomp={}"


def test_ulimits_of_the_settings_lie_over_ours() -> None:
    settings = DockerSettings(set_name="a", guest_binary=Path("/g"), ulimits={"nofile": 9, "nproc": 5})
    limits = {each["Name"]: each["Hard"] for each in body(image(), settings)["HostConfig"]["Ulimits"]}
    assert (limits["nofile"], limits["nproc"], limits["msgqueue"], limits["core"]) == (9, 5, 0, 0)


@pytest.mark.parametrize(
    ("volumes", "label", "places"),
    [
        ((), "", ("/tmp", "/dev/shm")),
        (("/v/", "//tmp"[1:]), "", ("/tmp", "/v", "/dev/shm")),
        (("/a/b/../c",), "/x, /y/z ,", ("/tmp", "/x", "/a/c", "/dev/shm", "/y/z")),
        (("/etc/app", "/usr/share/x"), "", ("/tmp", "/dev/shm", "/etc/app", "/usr/share/x")),
        (
            ("/process", "/gcx", "/devices", "/home", "/var", "/opt"),
            "/srv",
            ("/devices", "/gcx", "/home", "/opt", "/process", "/srv", "/tmp", "/var", "/dev/shm"),
        ),
    ],
)
def test_places_of_an_image(volumes: tuple[str, ...], label: str, places: tuple[str, ...]) -> None:
    assert writable_places(image(volumes=volumes, labels={LABEL_WRITABLE: label})) == places


@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/proc",
        "/proc/1",
        "/sys",
        "/dev",
        "/dev/mqueue",
        "/dev/shm/x",
        "/gc",
        "/gc/run",
        "/etc",
        "/usr",
        "/lib64",
        "relative",
        "/with\nnewline",
        "/" + "x" * 2000,
    ],
)
@pytest.mark.parametrize("by", ["volume", "label"])
def test_places_that_are_refused_name_their_origin(place: str, by: str) -> None:
    asked = image(volumes=(place,)) if by == "volume" else image(labels={LABEL_WRITABLE: place})
    with pytest.raises(ImageUnusable, match="VOLUME" if by == "volume" else LABEL_WRITABLE):
        writable_places(asked)


@pytest.mark.parametrize("place", ["/a/../b", "/a//b", "//a", "/./a"])
def test_a_label_is_taken_literally_or_not_at_all(place: str) -> None:
    with pytest.raises(ImageUnusable, match=r"must be written without|single slash"):
        writable_places(image(labels={LABEL_WRITABLE: place}))


def test_the_number_of_places_is_bounded() -> None:
    many = tuple(f"/v{n}" for n in range(MAX_WRITABLE_PLACES))
    assert len(writable_places(image(volumes=many))) == MAX_WRITABLE_PLACES + 2
    with pytest.raises(ImageUnusable, match="at most 16"):
        writable_places(image(volumes=(*many, "/one-more")))


@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=60))
def test_no_place_is_ever_outside_the_rules(volumes: list[str], label: str) -> None:
    try:
        places = writable_places(image(volumes=tuple(volumes), labels={LABEL_WRITABLE: label}))
    except ImageUnusable:
        return
    for place in places:
        parts = place.split("/")
        assert parts[0] == ""
        assert len(parts) > 1
        assert not {"", ".", ".."} & set(parts[1:])
        assert parts[1] not in ("proc", "sys", "gc")
        assert parts[1] != "dev" or place == "/dev/shm"


def inspected(**fields: Any) -> dict[str, Any]:
    return {"Id": ID, "Os": "linux", "Architecture": "amd64", "RepoDigests": [], **fields}


AMD = EngineFacts(architecture="amd64")


def test_the_digest_is_that_of_the_reference_own_registry() -> None:
    listed = ["other.example/ocr@sha256:" + "3" * 64, "r.example/ocr@sha256:" + "2" * 64]
    of = image_from(parse_reference("r.example/ocr:1"), inspected(RepoDigests=listed), AMD)
    assert of.digest == "sha256:" + "2" * 64
    assert image_from(parse_reference("ocr:1"), inspected(RepoDigests=listed), AMD).digest == ID
    assert image_from(parse_reference(ID), inspected(RepoDigests=listed), AMD).digest == ID


def test_null_everywhere_is_an_image_without_anything() -> None:
    empty = dict.fromkeys(("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "Volumes", "Labels"))
    for config in (None, {}, empty):
        assert image_from(parse_reference("ocr:1"), inspected(Config=config), AMD) == image()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            {"Architecture": "arm64"},
            "built for arm64, this machine is amd64; build it with --platform linux/amd64",
        ),
        ({"Os": "windows"}, "for windows"),
        ({"Id": ""}, "no id"),
        ({"Config": []}, None),
        ({"Config": ["x"]}, "Config"),
        ({"Config": {"Entrypoint": "sh"}}, "Entrypoint"),
        ({"Config": {"Cmd": [1]}}, "Cmd"),
        ({"Config": {"Env": {"A": "1"}}}, "Env"),
        ({"Config": {"User": 7}}, "User"),
        ({"Config": {"Volumes": ["/x"]}}, "Volumes"),
        ({"Config": {"Volumes": {"/proc": {}}}}, "/proc"),
    ],
)
def test_images_that_cannot_run_here(fields: dict[str, Any], why: str | None) -> None:
    if why is None:
        assert image_from(parse_reference("ocr:1"), inspected(**fields), AMD) == image()
        return
    with pytest.raises(ImageUnusable, match=why):
        image_from(parse_reference("ocr:1"), inspected(**fields), AMD)
