"""A slot's walls as data, and that a launcher's rendering leaves none of them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.images.user import Owner
from scheduler.launchers import docker_config
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.docker_config import DockerSettings, EngineFacts, create_body
from scheduler.launchers.hardening import Hardening, SlotLimits, Tmpfs, harden
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources

ID: Final = "sha256:" + "1" * 64
IMAGE: Final = Image("ocr:1", ID, ID, entrypoint=("/secret",), env=("A=1",))
RESOURCES: Final = Resources(150, 256)
LAYOUT: Final = Layout(("/tmp", "/v", "/dev/shm"), owner=Owner(7, 8))


def walls(**limits: Any) -> Hardening:
    return harden(IMAGE, RESOURCES, SlotLimits(**limits), LAYOUT, "{}")


def test_a_slot_is_refused_all_that_it_does_not_need() -> None:
    made = walls()
    assert (made.capabilities, made.new_privileges, made.network, made.read_only_root) == (
        (),
        False,
        False,
        True,
    )
    assert made.resources == RESOURCES
    assert (made.pids, made.seccomp) == (256, "{}")
    assert made.ulimits == {"core": 0, "memlock": 65_536, "msgqueue": 0, "sigpending": 1024}


def test_init_is_the_guest_and_never_the_image_own_program() -> None:
    assert walls(ulimits={"nofile": 9}).init == (
        *("/gc/guest", "/gc/run/executor.sock", "9", "/tmp", "/v", "/dev/shm"),
        *("--", "PATH", "HOSTNAME", "HOME", "A"),
    )


def test_places_are_sized_and_their_users() -> None:
    found = {place.path: place for place in walls(tmp_mib=1, shm_mib=2, writable_mib=3, inodes=4).tmpfs}
    assert {path: place.size_kib >> 10 for path, place in found.items() if path != "/dev"} == {
        "/tmp": 1,
        "/v": 3,
        "/dev/shm": 2,
    }
    assert {path: place.owner for path, place in found.items()} == {
        "/tmp": Owner(7, 8),
        "/v": Owner(7, 8),
        "/dev/shm": Owner(),
        "/dev": Owner(),
    }
    assert found["/tmp"].inodes == 4
    assert [path for path, place in found.items() if place.devices or not place.writable] == ["/dev"]


def body(made: Hardening, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(docker_config, "harden", lambda *_: made)
    settings = DockerSettings(set_name="a", installation="0", guest_binary=Path("/opt/guest"))
    pool = PoolKey("acme", ID, RESOURCES, Isolation.SHARED)
    return create_body(SlotOrder("s1", pool, IMAGE, "t" * 64), Path("/run/s1"), settings, EngineFacts())


OTHER: Final[dict[str, Any]] = {
    "init": ("/gc/guest", "x"),
    "tmpfs": (),
    "resources": Resources(100, 64),
    "pids": 1,
    "ulimits": {},
    "seccomp": None,
    "sysctls": {},
    "hostname": "other",
    "oom_score_adj": 0,
    "capabilities": ("CHOWN",),
    "new_privileges": True,
    "network": True,
    "read_only_root": False,
    "private": (),
}


@pytest.mark.parametrize("wall", Hardening.__struct_fields__)
def test_docker_is_told_of_every_wall(wall: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = walls()
    changed = msgspec.structs.replace(made, **{wall: OTHER[wall]})
    assert body(made, monkeypatch) != body(changed, monkeypatch)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("path", "/other"),
        ("size_kib", 5),
        ("inodes", 5),
        ("mode", 0o700),
        ("owner", Owner(1, 2)),
        ("writable", False),
        ("programs", False),
        ("devices", True),
    ],
)
def test_docker_is_told_all_of_a_place(option: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Tmpfs(path="/tmp", size_kib=1024, inodes=10, mode=0o1777)
    changed = msgspec.structs.replace(place, **{option: value})
    one, other = (msgspec.structs.replace(walls(), tmpfs=(each,)) for each in (place, changed))
    assert body(one, monkeypatch) != body(other, monkeypatch)
