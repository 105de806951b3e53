"""Orders and settings become create bodies; inspections become images. No engine is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.images.reference import parse_reference
from scheduler.images.user import Owner
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.docker_config import (
    DockerSettings,
    EngineFacts,
    contents_body,
    create_body,
    image_from,
    look_body,
)
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources

ID = "sha256:" + "1" * 64
SETTINGS = DockerSettings(
    set_name="a",
    installation="0123456789ab",
    guest_binary=Path("/opt/guest"),
    tmp_mib=10,
    shm_mib=3,
    writable_mib=7,
)


def image(**fields: Any) -> Image:
    return Image(reference="ocr:1", digest=ID, image_id=ID, **fields)


def body(of: Image, settings: DockerSettings = SETTINGS, **more: Any) -> dict[str, Any]:
    pool = PoolKey("acme", of.digest, Resources(cpu_percent=150, memory_mib=256), Isolation.SHARED)
    return create_body(
        SlotOrder("s1", pool, of, "t" * 64),
        Path("/run/s1"),
        settings,
        more.pop("facts", EngineFacts()),
        **more,
    )


def test_the_image_own_command_never_reaches_the_engine() -> None:
    made = body(image(entrypoint=("/secret",), cmd=("x",)))
    assert made["Entrypoint"] == ["/gc/guest"]
    assert made["Cmd"][:5] == ["/gc/run/executor.sock", "4096", "/tmp", "/dev/shm", "--"]
    assert "/secret" not in str(made)
    assert not {"User", "WorkingDir"} & set(made)


def test_the_program_gets_the_variables_of_its_image_and_of_the_engines_rules() -> None:
    made = body(image(env=("A=1=2", "NOMAD_ADDR=", "ODD")))
    names = made["Cmd"][made["Cmd"].index("--") + 1 :]
    assert names == ["PATH", "HOSTNAME", "HOME", "A", "NOMAD_ADDR", "ODD"]
    assert made["Env"][0] == "GENERAL_COMPUTE_SLOT_TOKEN=" + "t" * 64


def test_sizes_of_places() -> None:
    tmpfs = body(image(volumes=("/v",)))["HostConfig"]["Tmpfs"]
    assert {place: options.split("size=")[1] for place, options in tmpfs.items() if place != "/dev"} == {
        "/tmp": "10m,nr_inodes=65536",
        "/dev/shm": "3m,nr_inodes=65536",
        "/v": "7m,nr_inodes=65536",
    }


@pytest.mark.parametrize("owner", [Owner(7, 8), Owner(7, 0), Owner(0, 8)])
def test_places_are_given_to_the_user_but_for_the_one_that_no_image_has(owner: Owner) -> None:
    laid_out = Layout(("/tmp", "/v", "/dev/shm", "/tmp/x"), owner=owner)
    tmpfs = body(image(), laid_out=laid_out)["HostConfig"]["Tmpfs"]
    belongs_to = f",uid={owner.uid},gid={owner.gid},"
    assert {place for place, options in tmpfs.items() if belongs_to in options} == {"/v", "/tmp", "/tmp/x"}
    assert "id=" not in tmpfs["/dev/shm"].replace("nosuid", "")


def test_places_are_roots_where_nobody_else_is_named() -> None:
    assert "uid=" not in str(body(image(volumes=("/v",))))


def test_kept_content_is_taken_from_its_container_to_be_read_only() -> None:
    made = body(image(volumes=("/v", "/w")), laid_out=Layout(("/tmp", "/w"), ("/v",)), contents="gc-a-hold-1")
    assert made["HostConfig"]["VolumesFrom"] == ["gc-a-hold-1:ro"]
    assert set(made["HostConfig"]["Tmpfs"]) == {"/tmp", "/w", "/dev"}
    assert made["Cmd"][:5] == ["/gc/run/executor.sock", "4096", "/tmp", "/w", "--"]
    assert "VolumesFrom" not in body(image())["HostConfig"]


def test_the_container_of_contents_makes_volumes_of_nothing_else() -> None:
    of = image(volumes=("/v", "/w", "/tmp"), workdir="/v/deep")
    made = contents_body(of, SETTINGS, Layout(("/tmp", "/w"), ("/v",)), "hold-1")
    assert set(made["HostConfig"]["Tmpfs"]) == {"/w", "/tmp", "/dev/shm"}
    # The engine makes the image's own, so that it lies in the copy too.
    assert "WorkingDir" not in made
    assert made["Labels"]["org.general-compute.set"] == "a"
    assert made["Labels"]["org.general-compute.installation"] == "0123456789ab"
    assert made["Labels"]["org.general-compute.slot"] == "hold-1"


def test_a_look_into_an_image_makes_no_volume_and_bears_the_labels_of_its_set() -> None:
    made = look_body(image(volumes=("/v/",), workdir="/etc/passwd"), SETTINGS, "look-1")
    assert set(made["HostConfig"]["Tmpfs"]) == {"/v", "/tmp", "/dev/shm"}
    assert made["WorkingDir"] == "/"
    assert made["Labels"]["org.general-compute.set"] == "a"
    assert made["Labels"]["org.general-compute.installation"] == "0123456789ab"
    assert made["Labels"]["org.general-compute.slot"] == "look-1"


def test_swappiness_is_only_for_the_cgroups_that_know_it() -> None:
    assert "MemorySwappiness" not in body(image())["HostConfig"]
    assert body(image(), facts=EngineFacts(cgroup_version=1))["HostConfig"]["MemorySwappiness"] == 0


def test_a_seccomp_profile_is_handed_over_whole() -> None:
    assert body(image())["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert body(image(), seccomp="{}")["HostConfig"]["SecurityOpt"][1] == "seccomp={}"


def test_ulimits_of_the_settings_lie_over_ours() -> None:
    settings = msgspec.structs.replace(SETTINGS, ulimits={"nofile": 9, "nproc": 5})
    made = body(image(), settings)
    limits = {each["Name"]: each["Hard"] for each in made["HostConfig"]["Ulimits"]}
    assert (limits["nproc"], limits["msgqueue"], limits["core"]) == (5, 0, 0)
    # The program's, which the guest sets; the guest has the most that the engine may give.
    assert made["Cmd"][1] == "9"
    assert "nofile" not in limits


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


def test_a_runtime_is_named_only_where_one_is_set() -> None:
    assert "Runtime" not in body(image())["HostConfig"]
    named = msgspec.structs.replace(SETTINGS, runtime="kata")
    assert body(image(), named)["HostConfig"]["Runtime"] == "kata"


def test_nothing_of_a_closed_connection_stays_for_the_next_task() -> None:
    assert body(image())["HostConfig"]["Sysctls"] == {
        "net.ipv4.tcp_max_tw_buckets": "0",
        "net.ipv4.tcp_no_metrics_save": "1",
    }
