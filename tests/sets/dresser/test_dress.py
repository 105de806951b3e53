"""The program that dresses slots, on containers as Nomad makes them; many are of images that try to trick it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import docker
import pytest

from sets.dresser import DRESSER
from tests.scheduler.launchers.rig import Files, ImageMaker
from tests.sets.dresser.conftest import StartSlot
from tests.sets.dresser.slots import INODES, Node, Slot, wait_until

pytestmark = pytest.mark.docker

NOWHERE = ("rw", "nosuid", "nodev", "noatime")


def make(images: ImageMaker, *changes: str, **files: str | int | bytes | None) -> str:
    """An image with these files; `__` in a name stands for a slash."""
    found: Files = {name.replace("__", "/"): content for name, content in files.items()}
    return images.make('ENTRYPOINT ["/none"]', *changes, files=found)


def owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


def untouched(slot: Slot, *places: str) -> bool:
    return all("noexec" in slot.mounts()[place] for place in places)


def test_places_get_programs_inodes_and_an_owner(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images, "USER 12345:23456", v=0o755), "/tmp", "/dev/shm", "/v")
    assert slot.dress("/tmp", "/dev/shm", "/v") == ""
    for place in ("/tmp", "/dev/shm", "/v"):
        options = slot.mounts()[place]
        assert set(NOWHERE) <= set(options)
        assert "noexec" not in options
        assert os.statvfs(slot.inside(place)).f_files == INODES
        assert os.statvfs(slot.inside(place)).f_blocks * 4096 == 1 << 20
    assert owner(slot.inside("/tmp")) == owner(slot.inside("/v")) == (12345, 23456)
    # It lies in a /dev of the platform's own, so no image has a folder there whose mode it could get.
    assert owner(slot.inside("/dev/shm")) == (0, 0)


@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [
        ("0", 0, 0),
        ("worker", 1234, 2345),
        ("1234:0", 1234, 0),
        ("0:2345", 0, 2345),
        ("2147483647:2147483647", 2147483647, 2147483647),
    ],
)
def test_the_owner_is_the_user_that_the_engine_found(
    images: ImageMaker, start_slot: StartSlot, user: str, uid: int, gid: int
) -> None:
    slot = start_slot(make(images, f"USER {user}"), "/tmp")
    assert slot.dress("/tmp") == ""
    assert owner(slot.inside("/tmp")) == (uid, gid)


def test_files_of_the_image_in_a_volume_appear_and_cannot_be_written(
    images: ImageMaker, start_slot: StartSlot, engine: docker.DockerClient
) -> None:
    image = make(images, "VOLUME /held", held=None, held__file=b"of the image\n")
    slot = start_slot(image, "/tmp", "/held")
    assert os.listdir(slot.inside("/held")) == []
    assert slot.dress("/tmp", covered=("/held",)) == ""
    assert slot.inside("/held/file").read_bytes() == b"of the image\n"
    assert "/held" not in slot.mounts()
    with pytest.raises(OSError, match="Read-only"):
        slot.inside("/held/new").touch()
    # The engine made no volume of it, which would stay on the disk.
    kinds = {mount["Type"] for mount in engine.api.inspect_container(slot.id)["Mounts"]}
    assert "volume" not in kinds


def test_a_place_within_a_volume_with_content_stays_a_place(
    images: ImageMaker, start_slot: StartSlot
) -> None:
    image = make(images, held=None, held__file=b"1", held__tmp=None, held__tmp__deep=None)
    slot = start_slot(image, "/held", "/held/tmp", "/held/tmp/deep", "/tmp")
    assert slot.dress("/tmp", "/held/tmp", "/held/tmp/deep", covered=("/held",)) == ""
    assert slot.inside("/held/file").read_bytes() == b"1"
    for place in ("/held/tmp", "/held/tmp/deep"):
        assert set(NOWHERE) <= set(slot.mounts()[place])
        assert os.statvfs(slot.inside(place)).f_files == INODES
        (slot.inside(place) / "new").touch()
    assert "/held" not in slot.mounts()


def test_a_volume_within_a_volume_shows_its_files_too(images: ImageMaker, start_slot: StartSlot) -> None:
    image = make(images, held=None, held__file=b"1", held__in=None, held__in__file=b"2", held__in__place=None)
    slot = start_slot(image, "/held", "/held/in", "/held/in/place")
    assert slot.dress("/held/in/place", covered=("/held", "/held/in")) == ""
    assert slot.inside("/held/file").read_bytes() == b"1"
    assert slot.inside("/held/in/file").read_bytes() == b"2"
    assert set(NOWHERE) <= set(slot.mounts()["/held/in/place"])


def test_paths_that_mountinfo_escapes(images: ImageMaker, start_slot: StartSlot) -> None:
    place = "/with blank\\and\ttab"
    slot = start_slot(make(images), place)
    assert slot.dress(place) == ""
    assert owner(slot.inside(place)) == (0, 0)
    assert os.statvfs(slot.inside(place)).f_files == INODES


def test_a_slot_in_a_user_namespace(userns_engine: docker.APIClient, tmp_path: Path) -> None:
    """The owner is the USER as the host sees it, so that it is the USER in the slot."""
    node = Node(tmp_path)
    uid, gid = map(int, userns_engine.info()["DockerRootDir"].rpartition("/")[2].split("."))
    # As our runtime maps it: the slot's root makes the mount points below.
    for folder in ("hide", "hide/alloc", "hide/local", "hide/secrets"):
        os.chown(node.folder / folder, uid, gid)
    images = ImageMaker(userns_engine)
    image = make(images, "USER 1234:2345", v=None, held=None, held__file=b"of the image\n")
    slot = Slot(userns_engine, node, image, ["/tmp", "/dev/shm", "/v", "/held"])
    try:
        assert slot.dress("/tmp", "/dev/shm", "/v", covered=("/held",)) == ""
        assert uid > 0
        assert owner(slot.inside("/v")) == (uid + 1234, gid + 2345)
        assert os.statvfs(slot.inside("/v")).f_files == INODES
        assert "noexec" not in slot.mounts()["/tmp"]
        assert slot.inside("/held/file").read_bytes() == b"of the image\n"
    finally:
        slot.remove()
        images.clean()


# -- images that try to trick it


def test_a_place_behind_a_link_is_dressed_where_the_engine_has_mounted_it(
    images: ImageMaker, start_slot: StartSlot
) -> None:
    image = make(images, "USER 12345:12345", link="/real", real=None, real__v=None)
    slot = start_slot(image, "/tmp", "/link/v")
    assert slot.dress("/tmp", "/link/v") == ""
    assert set(NOWHERE) <= set(slot.mounts()["/real/v"])
    assert os.statvfs(slot.inside("/real/v")).f_files == INODES
    assert owner(slot.inside("/real/v")) == (12345, 12345)


@pytest.mark.parametrize(
    ("link", "target", "place", "said"),
    [
        ("x", "/gc", "/x/nomad", "/gc/nomad: the image had something mounted there"),
        ("x", "/gc", "/x/nomad/secrets", "the engine has mounted no place there"),
        ("x", "/gc", "/x/new", "/gc/new: the image had something mounted there"),
        ("x", "/gc/nomad", "/x/alloc", "the engine has mounted no place there"),
        ("x", "/sys", "/x/kernel", "the engine has mounted no place there"),
        ("x", "/dev", "/x/shm", ""),
    ],
)
def test_a_place_behind_a_link_to_the_platforms_own(
    images: ImageMaker, start_slot: StartSlot, link: str, target: str, place: str, said: str
) -> None:
    try:
        slot = start_slot(make(images, **{link: target}), "/tmp", "/dev/shm", place)
    except docker.errors.APIError:
        # This engine does not start it at all.
        return
    outcome = slot.dress("/tmp", "/dev/shm", place)
    if not said:
        assert outcome == ""
        assert os.statvfs(slot.inside("/dev/shm")).f_files == INODES
    else:
        assert said in outcome
        assert untouched(slot, "/tmp", "/dev/shm")


def test_a_volume_with_files_behind_a_link_is_refused(images: ImageMaker, start_slot: StartSlot) -> None:
    image = make(images, link="/real", real=None, real__v=None, real__v__file=b"1")
    slot = start_slot(image, "/tmp", "/link/v")
    assert slot.dress("/tmp", covered=("/link/v",)) == "/link/v: nothing covers this VOLUME"
    assert untouched(slot, "/tmp", "/real/v")


def test_a_link_where_a_place_goes_leads_nowhere_else(images: ImageMaker, start_slot: StartSlot) -> None:
    """The engine follows it within the image; to the host's folder of that name it never leads."""
    slot = start_slot(make(images, v="../../../../srv/elsewhere"), "/tmp", "/v")
    before = Path("/srv").stat()
    assert slot.dress("/tmp", "/v") == ""
    assert set(NOWHERE) <= set(slot.mounts()["/srv/elsewhere"])
    assert not Path("/srv/elsewhere").exists()
    assert Path("/srv").stat() == before


# -- slots that are not as ordered


def test_a_place_that_is_not_mounted(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images, v=None), "/tmp")
    assert "/v: the engine has mounted no place there" in slot.dress("/tmp", "/v")
    assert untouched(slot, "/tmp")


def test_a_tmpfs_that_nobody_ordered(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images), "/tmp", "/more")
    assert slot.dress("/tmp") == "/more: a tmpfs that nobody ordered"
    assert untouched(slot, "/tmp", "/more")


def test_a_path_that_is_both_a_place_and_a_volume_with_content(
    images: ImageMaker, start_slot: StartSlot
) -> None:
    slot = start_slot(make(images, v=None), "/tmp", "/v")
    assert "ordered as a place and as a VOLUME" in slot.dress("/tmp", "/v", covered=("/v",))


def test_a_volume_that_lies_in_a_place(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images), "/tmp", "/tmp/v")
    assert "something else than the image's files lies there" in slot.dress("/tmp", covered=("/tmp/v",))


def test_another_mount_over_a_place(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images), "/tmp", "/v")
    slot.change("bind", "/v", "/gc/bin")
    assert "/v: the engine has mounted no place there" not in slot.dress("/tmp")
    slot = start_slot(make(images), "/tmp", "/v")
    slot.change("tmpfs", "/v")
    assert slot.dress("/tmp", "/v") == "/v: a tmpfs that nobody ordered"
    assert untouched(slot, "/tmp")


def test_a_folder_of_nomad_that_could_be_entered(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images), "/tmp")
    slot.change("bind", "/gc/nomad", "/gc/nomad/alloc")
    assert slot.dress("/tmp") == "/gc/nomad: the image had something mounted there"
    slot = start_slot(make(images), "/tmp")
    slot.change("umount", "/gc/nomad")
    assert slot.dress("/tmp") == "/gc/nomad: the slot's job has mounted nothing there"


def test_a_slot_that_has_another_process_is_not_touched(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images), "/tmp", word="child")
    children = Path(f"/proc/{slot.pid}/task/{slot.pid}/children")
    wait_until(children.read_text)
    assert slot.dress("/tmp") == "the slot runs a program already"
    assert untouched(slot, "/tmp")
    child = int(children.read_text())
    assert slot.dress("/tmp", pid=child) == f"process {child} is not the init of a container"
    assert untouched(slot, "/tmp")


def test_a_process_that_is_no_slots_init(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images), "/tmp")
    assert slot.dress("/tmp", pid=os.getpid()) == f"process {os.getpid()} is not the init of a container"
    assert "is not the init of a container" in slot.dress("/tmp", pid=1)


def test_an_init_in_the_hosts_mount_namespace(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images), "/tmp")
    command = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "1000"]
    with subprocess.Popen(command) as outside:
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        wait_until(children.read_text)
        said = slot.dress("/tmp", pid=int(children.read_text()))
        outside.kill()
    assert said == "the slot has no mount namespace of its own"


def test_an_init_that_has_ended(images: ImageMaker, start_slot: StartSlot) -> None:
    slot = start_slot(make(images), "/tmp")
    pidfd = os.pidfd_open(slot.pid)
    slot.remove()
    done = subprocess.run(
        [DRESSER, str(pidfd), "10", "/tmp"], pass_fds=(pidfd,), capture_output=True, text=True
    )
    os.close(pidfd)
    assert (done.returncode, done.stderr) == (1, "the slot's init has ended")


@pytest.mark.parametrize("descriptor", ["0", "99", "x"])
def test_a_descriptor_that_is_no_process(descriptor: str) -> None:
    done = subprocess.run(
        [DRESSER, descriptor, "10", "/tmp"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.endswith("is not a process")
